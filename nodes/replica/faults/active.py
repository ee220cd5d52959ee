"""The faults of one replica that are in force now."""

from __future__ import annotations

import logging
import threading
from typing import Any

from typing_extensions import TypedDict

from broker.errors import LogError
from broker.events import Events
from nodes.http.problem import Problem
from nodes.http.times import timestamp
from nodes.replica.faults import FAULTS, AnyFault, Fault, Parts
from nodes.replica.metrics import ReplicaMetrics

_logger = logging.getLogger("lab.faults")


class FaultShown(TypedDict):
    """A fault in force. ``until`` is ``null`` for one that lasts until somebody ends it."""

    fault: str
    parameters: dict[str, Any]
    since: str
    until: str | None


class FaultsAnswer(TypedDict):
    """What is wrong with a replica now, and what could be: the parameters of each fault as JSON schema."""

    source: str
    faults: list[FaultShown]
    available: dict[str, Any]


class EndedAnswer(TypedDict):
    """The faults that were ended."""

    source: str
    ended: list[str]


class _Begun:
    """A fault, since when, and what ends it."""

    def __init__(self, fault: Fault, since_us: int, timer: threading.Timer | None) -> None:
        self.fault = fault
        self.since_us = since_us
        self.timer = timer


class ActiveFaults:
    """Begins faults, ends them when their time is up, and says so: in the log, as an event, as a metric.

    One of each kind at a time: begun again, it begins anew. They are gone when the process ends. Thread-safe.
    """

    def __init__(self, replica: str, parts: Parts, events: Events, metrics: ReplicaMetrics) -> None:
        self._replica = replica
        self._parts = parts
        self._events = events
        self._metrics = metrics
        self._lock = threading.RLock()
        self._begun: dict[str, _Begun] = {}

    def show(self) -> FaultsAnswer:
        """What is in force."""
        with self._lock:
            faults = [_shown(begun) for _, begun in sorted(self._begun.items())]
        available = {name: kind.model_json_schema() for name, kind in FAULTS.items()}
        return {"source": self._replica, "faults": faults, "available": available}

    def begin(self, fault: AnyFault) -> FaultShown:
        """Begin a fault. Raises ``Problem`` 409 where there is nothing to corrupt."""
        name = fault.fault
        with self._lock:
            self._end(name)
            since_us = self._parts.clock.now_us()
            fault.begin(self._parts)
            self._say("fault", name, fault)
            timer = None
            if not fault.momentary:
                if fault.duration_ms is not None:
                    timer = threading.Timer(fault.duration_ms / 1000, self._time_is_up, (name, since_us))
                    timer.daemon = True
                    timer.start()
                self._begun[name] = _Begun(fault, since_us, timer)
            self._metrics.fault(name, active=not fault.momentary, at_us=since_us)
            return _shown(_Begun(fault, since_us, timer))

    def end(self, name: str | None) -> EndedAnswer:
        """End a fault, or all. Raises ``Problem`` 404 for one that is not in force."""
        with self._lock:
            if name is not None and name not in self._begun:
                detail = f"{name[:100]!r} is not in force; in force are {', '.join(sorted(self._begun)) or 'none'}."
                raise Problem(404, "no-such-fault", "No such fault", detail)
            names = sorted(self._begun) if name is None else [name]
            for found in names:
                self._end(found)
            return {"source": self._replica, "ended": names}

    def names(self) -> tuple[str, ...]:
        """Those in force."""
        with self._lock:
            return tuple(sorted(self._begun))

    def stop(self) -> None:
        """Let nothing begin or end any more."""
        with self._lock:
            for begun in self._begun.values():
                if begun.timer is not None:
                    begun.timer.cancel()

    def _time_is_up(self, name: str, since_us: int) -> None:
        with self._lock:
            begun = self._begun.get(name)
            if begun is not None and begun.since_us == since_us:  # not another one of its kind
                self._end(name)

    def _end(self, name: str) -> None:
        begun = self._begun.pop(name, None)
        if begun is None:
            return
        if begun.timer is not None:
            begun.timer.cancel()
        begun.fault.end(self._parts)
        self._metrics.fault(name, active=False, at_us=self._parts.clock.now_us())
        self._say("fault_ended", name, begun.fault)

    def _say(self, kind: str, name: str, fault: Fault) -> None:
        parameters = fault.model_dump_json(exclude={"fault"}, exclude_none=True)
        _logger.warning("%s: %s %s", kind, name, parameters)
        try:
            self._events.publish(kind, replica=self._replica, fault=name, parameters=parameters)
        except LogError as error:  # it is cut off from the log by another fault
            _logger.warning("the event could not be published: %s", error)


def _shown(begun: _Begun) -> FaultShown:
    fault = begun.fault
    until_us = None if fault.duration_ms is None else begun.since_us + fault.duration_ms * 1000
    found = fault.model_dump(exclude_none=True)
    return {
        "fault": found.pop("fault"),
        "parameters": found,
        "since": str(timestamp(begun.since_us)),
        "until": timestamp(until_us),
    }
