"""What happened while a program was graded at one level: what it showed, what was done to it, and the log itself."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from broker.position import START, Position
from lab.checking.history import History, Operation
from lab.torture.ledger import Ledger

Lane = Literal["log", "replica", "reader", "grader"]


class Mark(NamedTuple):
    """An event of the story of a run. Times here and below: microseconds since 1970 by the log's clock."""

    at_us: int
    lane: Lane
    words: str
    positions: tuple[Position, ...] = ()


class Poll(NamedTuple):
    """A read of ``GET /version``. ``position`` is ``None`` without such an answer; ``words`` then say why."""

    invoked_us: int
    returned_us: int
    position: Position | None
    words: str = ""

    def as_read(self, node: str) -> Operation:
        """Return this as a read of no key."""
        return Operation(-1, -1, "read", "ok", self.invoked_us, self.returned_us, position=self.position, node=node)


class Death(NamedTuple):
    """A kill, the program's group as the log had it then, and what the program showed first after its restart.

    ``reads``: of every key, before anything else was written.
    """

    at_us: int
    delivered: Position
    pending: frozenset[Position]
    restarted_us: int
    first: Poll
    reads: list[Operation]

    def acknowledged(self, position: Position) -> bool:
        return position <= self.delivered and position not in self.pending


class Setting(NamedTuple):
    """A change of the delay, made at some time between ``sent_us`` and ``set_us``."""

    sent_us: int
    set_us: int
    delay_ms: float


@dataclass(frozen=True)
class Record:
    """Everything that is judged at one level.

    ``history``: reads of the program, and at the end a ``final`` one of every key. ``peer_lateness_ms``: of a built-in
    replica beside it, by entry. ``halted``: the program stopped honestly. ``pending`` and ``head``: of its group, if
    it has one, and of the log at the end. ``unanswered``: keys whose last read had no answer, and why.
    """

    level: int
    node: str
    history: History
    ledger: Ledger
    polls: list[Poll]
    marks: list[Mark]
    deaths: list[Death] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    peer_lateness_ms: dict[Position, float] = field(default_factory=dict)
    halted: bool = False
    pending: tuple[Position, ...] | None = ()
    unanswered: dict[str, str] = field(default_factory=dict)
    head: Position = START

    @property
    def began_us(self) -> int:
        """When the level began: the first thing that was recorded."""
        times = [mark.at_us for mark in self.marks[:1]] + [poll.invoked_us for poll in self.polls[:1]]
        return min([*times, self.history.began_us] if self.history.operations else times, default=0)

    def time(self, at_us: int) -> str:
        return f"{(at_us - self.began_us) / 1e6:.3f} s"
