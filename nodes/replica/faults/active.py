"""The active faults of one replica."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

from typing_extensions import TypedDict

from broker.errors import LogError
from nodes.http.times import timestamp
from nodes.replica.faults.faults import FAULTS, Fault
from nodes.replica.parts import Parts

_logger = logging.getLogger("lab.faults")


class FaultShown(TypedDict):
    """A fault. ``until`` is ``null`` for one without a duration."""

    fault: str
    parameters: dict[str, Any]
    since: str
    until: str | None


class FaultNotActive(Exception):
    """A fault cannot be ended because it is not active."""


@dataclass(frozen=True)
class _Active:
    fault: Fault
    since_us: int
    timer: threading.Timer

    def show(self) -> FaultShown:
        parameters = self.fault.model_dump(exclude_none=True)
        until_us = None if self.fault.duration_ms is None else self.since_us + self.fault.duration_ms * 1000
        return {
            "fault": parameters.pop("fault"),
            "parameters": parameters,
            "since": str(timestamp(self.since_us)),
            "until": timestamp(until_us),
        }


class ActiveFaults:
    """Starts faults, ends them when their duration is over, and reports both: in the log, as an event, as a metric.

    Starting an active fault restarts it; no fault survives its process. Thread-safe.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.RLock()
        self._active: dict[str, _Active] = {}
        for name in FAULTS:
            parts.metrics.declare_fault(name)

    def show(self) -> list[FaultShown]:
        with self._lock:
            return [active.show() for _, active in sorted(self._active.items())]

    def start(self, fault: Fault) -> FaultShown:
        """Start a fault. Raises ``NothingToCorrupt``."""
        name = fault.fault
        with self._lock:
            self._end(name)
            since_us = self._parts.clock.now_us()
            fault.start(self._parts)
            self._report("fault", fault)
            timer = threading.Timer((fault.duration_ms or 0) / 1000, self._time_is_up, (name, since_us))
            timer.daemon = True
            active = _Active(fault, since_us, timer)
            if not fault.momentary:
                self._active[name] = active
            if fault.duration_ms is not None:
                timer.start()
            self._parts.metrics.fault(name, active=not fault.momentary, at_us=since_us)
            return active.show()

    def end(self, name: str | None) -> list[str]:
        """End a fault, or all; return the names of those ended. Raises ``FaultNotActive``."""
        with self._lock:
            if name is not None and name not in self._active:
                raise FaultNotActive(f"{name[:100]!r} is not active; active: {', '.join(self.names()) or 'none'}")
            names = sorted(self._active) if name is None else [name]
            for found in names:
                self._end(found)
            return names

    def names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(self._active))

    def stop(self) -> None:
        """Cancel the timers, so that no fault ends by itself."""
        with self._lock:
            for active in self._active.values():
                active.timer.cancel()

    def _time_is_up(self, name: str, since_us: int) -> None:
        with self._lock:
            active = self._active.get(name)
            if active is not None and active.since_us == since_us:  # it has not been restarted
                self._end(name)

    def _end(self, name: str) -> None:
        active = self._active.pop(name, None)
        if active is None:
            return
        active.timer.cancel()
        active.fault.end(self._parts)
        self._parts.metrics.fault(name, active=False, at_us=self._parts.clock.now_us())
        self._report("fault_ended", active.fault)

    def _report(self, kind: str, fault: Fault) -> None:
        name, parameters = fault.fault, fault.model_dump_json(exclude={"fault"}, exclude_none=True)
        _logger.warning("%s: %s %s", kind, name, parameters)
        try:
            self._parts.fault_events.publish(
                kind, replica=self._parts.config.node_id, fault=name, parameters=parameters
            )
        except LogError as error:
            _logger.warning("the event could not be published: %s", error)
