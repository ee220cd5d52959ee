"""The faults: one class each, which registers itself.

A class has the fault's name and parameters as fields, an ``example`` of the parameters, and a docstring that is shown
as the fault's description. ``start`` breaks something, ``end`` repairs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, RootModel, model_validator

from nodes.http.api import Body, Key

if TYPE_CHECKING:  # the command line, which only lists the faults, must not import the replica
    from nodes.replica.parts import Parts

SKEW_DRAWN_MS_MAX = 80  # the chaos test accepts entries applied early by as much as this
FAULTS: dict[str, type[Fault]] = {}
Probability = Annotated[float, Field(gt=0, le=1)]


def _add_example(schema: dict[str, Any], kind: type[Fault]) -> None:
    if kind is not Fault:
        schema["examples"] = [{"fault": kind.name(), **kind.example}]


class Fault(Body):
    """A fault of a replica. It lasts until it is ended, or for ``duration_ms``; a ``momentary`` one is over at once."""

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
            raise ValueError("duration_ms: it is over at once")
        return self

    def start(self, parts: Parts) -> None:
        """Break something."""
        raise NotImplementedError

    def end(self, parts: Parts) -> None:
        """Repair it; nothing to do for a momentary fault."""


class Pause(Fault):
    """Entries are delivered but not applied; when the fault ends, all overdue entries are applied at once."""

    fault: Literal["pause"]

    def start(self, parts: Parts) -> None:
        parts.inbox.set_paused(paused=True)

    def end(self, parts: Parts) -> None:
        parts.inbox.set_paused(paused=False)


class Partition(Fault):
    """Connections to the log server break, and no new one can be made; reads are still answered."""

    fault: Literal["partition"]

    def start(self, parts: Parts) -> None:
        parts.link.cut()

    def end(self, parts: Parts) -> None:
        parts.link.mend()


class Crash(Fault):
    """The process ends at once, as by ``kill -9``; its supervisor restarts it."""

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
    """Each batch of new entries is, with this probability, delivered a second time."""

    drawn: ClassVar[dict[str, Sequence[float]]] = {"probability": (0.3, 1)}
    fault: Literal["duplicate"]
    probability: Probability = 1.0

    def start(self, parts: Parts) -> None:
        parts.reads_again.probability = self.probability

    def end(self, parts: Parts) -> None:
        parts.reads_again.probability = 0


class DropAck(Fault):
    """Each acknowledgement is, with this probability, lost: the entry is applied and stays pending.

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
    """The replica's clock is ahead by ``skew_ms``, or behind if that is negative.

    With a clock that is ahead, entries are applied before they are due, and the replica itself does not notice.
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
    """Raised if the store does not hold the key, or no key at all."""


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
