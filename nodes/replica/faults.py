"""The faults that can be injected into a running replica, one class each, and the active ones.

A class has the fault's name and parameters as fields, an ``example`` of the parameters, and a docstring that serves as
the fault's description. ``start`` injects the fault, ``end`` repairs it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, RootModel, model_validator
from typing_extensions import TypedDict

from broker.errors import LogError
from nodes.http.api import Body, Key
from nodes.http.times import timestamp

if TYPE_CHECKING:  # the command line, which only lists the faults, must not import the replica
    from nodes.replica.parts import Parts

_logger = logging.getLogger("lab.faults")
SKEW_DRAWN_MS_MAX = 80  # the chaos test accepts entries applied early by as much as this
FAULTS: dict[str, type[Fault]] = {}
Probability = Annotated[float, Field(gt=0, le=1)]


def _add_example(schema: dict[str, Any], kind: type[Fault]) -> None:
    if kind is not Fault:
        schema["examples"] = [{"fault": kind.name(), **kind.example}]


class Fault(Body):
    """A fault of a replica. It lasts until ended, or for ``duration_ms``; a ``momentary`` fault has no duration."""

    model_config = ConfigDict(json_schema_extra=_add_example)
    momentary: ClassVar[bool] = False
    breaks_guarantees: ClassVar[bool] = False  # so the chaos test injects it only on request
    example: ClassVar[dict[str, Any]] = {"duration_ms": 5000}
    drawn: ClassVar[dict[str, Sequence[float]]] = {}  # the chaos test draws its parameters from these

    fault: str
    duration_ms: Annotated[int, Field(ge=1, le=3_600_000)] | None = None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        FAULTS[cls.name()] = cls

    @classmethod
    def name(cls) -> str:
        """The only value of the field ``fault``."""
        return str(get_args(cls.model_fields["fault"].annotation)[0])

    @model_validator(mode="after")
    def _check_duration(self) -> Fault:
        if self.momentary and self.duration_ms is not None:
            raise ValueError("duration_ms: not allowed, because this fault is momentary")
        return self

    def start(self, parts: Parts) -> None:
        raise NotImplementedError

    def end(self, parts: Parts) -> None:
        """Nothing to do for a momentary fault."""


class Pause(Fault):
    """Entries are delivered but not applied; when the fault ends, all overdue entries are applied immediately."""

    fault: Literal["pause"]

    def start(self, parts: Parts) -> None:
        parts.inbox.set_paused(paused=True)

    def end(self, parts: Parts) -> None:
        parts.inbox.set_paused(paused=False)


class Partition(Fault):
    """Connections to the log server break, and no new ones can be opened; reads are still answered."""

    fault: Literal["partition"]

    def start(self, parts: Parts) -> None:
        parts.link.cut()

    def end(self, parts: Parts) -> None:
        parts.link.mend()


class Crash(Fault):
    """The process exits immediately, as by ``kill -9``; its supervisor restarts it."""

    momentary = True
    example: ClassVar[dict[str, Any]] = {}
    fault: Literal["crash"]

    def start(self, parts: Parts) -> None:
        parts.end_process()


class SlowApply(Fault):
    """Entries are applied one at a time, at a limited rate. Unlike with a delay, a backlog grows."""

    example: ClassVar[dict[str, Any]] = {"duration_ms": 10_000, "entries_per_second": 5}
    drawn: ClassVar[dict[str, Sequence[float]]] = {"entries_per_second": range(20, 201)}
    fault: Literal["slow_apply"]
    entries_per_second: Annotated[float, Field(ge=0.1, le=100_000)] = 10.0

    def start(self, parts: Parts) -> None:
        parts.inbox.set_rate(self.entries_per_second)

    def end(self, parts: Parts) -> None:
        parts.inbox.set_rate(None)


class Duplicate(Fault):
    """Each batch of new entries is delivered a second time with this probability."""

    drawn: ClassVar[dict[str, Sequence[float]]] = {"probability": (0.3, 1)}
    fault: Literal["duplicate"]
    probability: Probability = 1.0

    def start(self, parts: Parts) -> None:
        parts.reads_again.probability = self.probability

    def end(self, parts: Parts) -> None:
        parts.reads_again.probability = 0


class DropAck(Fault):
    """Each acknowledgement is lost with this probability: the entry is applied but stays pending.

    When the fault ends, the replica acknowledges the pending entries that it has applied.
    """

    drawn: ClassVar[dict[str, Sequence[float]]] = {"probability": (0.3, 1)}
    fault: Literal["drop_ack"]
    probability: Probability = 1.0

    def start(self, parts: Parts) -> None:
        parts.loses_acks.probability = self.probability

    def end(self, parts: Parts) -> None:
        parts.loses_acks.probability = 0
        parts.recheck_requested.set()


class Skew(Fault):
    """The replica's clock is ahead by ``skew_ms``, or behind if the value is negative.

    If the clock is ahead, entries are applied before they are due, and the replica itself does not notice.
    """

    example: ClassVar[dict[str, Any]] = {"duration_ms": 10_000, "skew_ms": 300}
    drawn: ClassVar[dict[str, Sequence[float]]] = {"skew_ms": (-SKEW_DRAWN_MS_MAX, -40, 40, SKEW_DRAWN_MS_MAX)}
    fault: Literal["skew"]
    skew_ms: Annotated[float, Field(ge=-3_600_000, le=3_600_000)]

    def start(self, parts: Parts) -> None:
        parts.clock.set_skew(round(self.skew_ms * 1000))
        parts.inbox.clock_changed()

    def end(self, parts: Parts) -> None:
        parts.clock.set_skew(0)
        parts.inbox.clock_changed()


class NothingToCorrupt(Exception):
    """Raised if the store does not hold the key, or is empty."""


class Corrupt(Fault):
    """One stored value is changed, but not its version or position: only a digest reveals it.

    ``key``: the key to corrupt; any if omitted. The damage remains until the key is written again or the replica
    installs a snapshot.
    """

    momentary = True
    breaks_guarantees = True
    example: ClassVar[dict[str, Any]] = {}
    fault: Literal["corrupt"]
    key: Key | None = None

    def start(self, parts: Parts) -> None:
        if not parts.store.corrupt(self.key):
            raise NothingToCorrupt("the replica does not hold this key" if self.key else "the replica holds no keys")


if TYPE_CHECKING:
    AnyFault = Fault
else:
    AnyFault = Annotated[reduce(or_, FAULTS.values()), Field(discriminator="fault")]


class FaultBody(RootModel[AnyFault]):
    """A fault with its parameters."""

    TAGS: ClassVar[int] = 1


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
    """Starts faults, ends them after their duration, and reports both: in the log, as an event, as a metric.

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
        """Cancel the timers, so that no fault ends automatically."""
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
            replica = self._parts.config.node_id
            self._parts.fault_events.publish(kind, replica=replica, fault=name, parameters=parameters)
        except LogError as error:
            _logger.warning("the event could not be published: %s", error)
