"""The judge's model of the log servers and of the replicas' stores."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from broker.delay.line import Schedule
from broker.delay.models import Order
from broker.position import START, Position

T = TypeVar("T")
_KNOWN_MAX = 50_000  # positions that are remembered
_FORGOTTEN = 10_000  # of the oldest, at once when there are more


class Violation(BaseException):
    """Raised where a guarantee is broken, and not for the nodes to handle. ``rule`` names it."""

    def __init__(self, rule: str, words: str) -> None:
        super().__init__(f"{rule}: {words}")
        self.rule, self.words = rule, words


class Logged(NamedTuple):
    """An entry as a log server took it. ``at_ns``: by the world's clock."""

    write_id: str
    at_ns: int
    is_epoch: bool = False
    origin: Position | None = None


class Newest(NamedTuple):
    """The newest position that a client was told. ``losses``: how often positions were lost by all before that."""

    position: Position = START
    losses: int = 0


@dataclass
class Step:
    """The log's clock was set by some microseconds; until then, its time can be wrong."""

    by_us: int
    until_ns: int | None = None


@dataclass
class Line:
    """The content of one log server, by the model."""

    head: Position = START
    records: dict[str, int] = field(default_factory=dict)  # each key's contribution to the digest
    total: int = 0
    cuts: list[tuple[Position, Position]] = field(default_factory=list)  # where epochs continue from, and start

    def copy(self) -> Line:
        return Line(self.head, dict(self.records), self.total, list(self.cuts))

    def lost_at(self, position: Position) -> Position | None:
        """Return the start of the epoch that goes on without what it had at this position, ``None`` if it has it."""
        return next((start for origin, start in self.cuts if origin < position < start), None)

    def set(self, key: str, found: int | None) -> None:
        self.total += (found or 0) - self.records.pop(key, 0)
        if found is not None:
            self.records[key] = found


@dataclass
class Copy:
    """The store of one replica, by the model."""

    name: str
    position: Position = START
    durable: Position = START  # of its store
    beyond: set[Position] = field(default_factory=set)  # applied in order of arrival
    is_committing: bool = False  # a batch that does not count as applied yet
    is_replaced: bool = False  # what that batch has changed, by a snapshot
    orders: set[Order] = field(default_factory=set)  # in which the next batch can have been taken from the line
    schedules: deque[tuple[int, Schedule]] = field(default_factory=lambda: deque(maxlen=64))
    skews: deque[tuple[int, int]] = field(default_factory=lambda: deque([(0, 0)], maxlen=64))  # when, and microseconds

    @property
    def order(self) -> Order:
        return self.schedules[-1][1].order if self.schedules else "log"

    def has(self, position: Position) -> bool:
        return position <= self.position or position in self.beyond


def forget_oldest(known: dict[Any, Any]) -> None:
    """Forget many at once: to find the oldest, a dictionary skips all that were deleted since it last grew."""
    if len(known) > _KNOWN_MAX:
        for key in list(islice(known, _FORGOTTEN)):
            del known[key]


def since(changes: Sequence[tuple[int, T]], at_ns: int) -> list[T]:
    """Return what was active at any time since then."""
    first = next((n for n in range(len(changes) - 1, -1, -1) if changes[n][0] <= at_ns), 0)
    return [changes[n][1] for n in range(first, len(changes))]
