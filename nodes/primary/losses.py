"""The writes that this primary has acknowledged, to name those that the log has lost."""

from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from broker.history import History
from broker.position import Position
from broker.registry import Events

_ACKNOWLEDGED_MAX = 200_000  # since the last comparison
_RUNS_MAX = 10_000
_NAMED_MAX = 20  # in a text
_IN_EVENT_MAX = 1000  # runs: 20 KB. With a second primary, which writes in turns, there are many.
_SHOWN_SECONDS = 300.0
_STARTS = 8  # the newest starts of epochs, for which late replies are considered
_LAST_VERSION = 2**63


class Run(NamedTuple):
    """Successive positions of one epoch, both ends included."""

    epoch: int
    first: int
    last: int

    def __str__(self) -> str:
        one = f"{self.epoch}-{self.first}"
        return one if self.first == self.last else f"{one} to {self.epoch}-{self.last}"

    @property
    def writes(self) -> int:
        return self.last - self.first + 1


class Lost(NamedTuple):
    """Acknowledged writes that the log lacks since it ended ``after`` a position."""

    runs: list[Run]
    after: Position

    @property
    def writes(self) -> int:
        return sum(run.writes for run in self.runs)

    def positions(self, ranges: int = _NAMED_MAX) -> str:
        more = len(self.runs) - ranges
        return ", ".join(map(str, self.runs[:ranges])) + (f" and {more} more ranges" if more > 0 else "")

    def __str__(self) -> str:
        writes = "1 acknowledged write" if self.writes == 1 else f"{self.writes} acknowledged writes"
        return f"the log lost {writes}, {self.positions()}: it ended at {self.after} when another server took over"


class Positions:
    """A set of positions: the newest 10,000 runs without gaps of it."""

    def __init__(self) -> None:
        self._runs: list[Run] = []  # sorted

    def add(self, positions: Iterable[Position]) -> None:
        for position in positions:
            self._add(position)
        del self._runs[:-_RUNS_MAX]

    def _add(self, position: Position) -> None:
        epoch, version = position
        runs = self._runs
        at = bisect(runs, (epoch, version, _LAST_VERSION))
        first = last = version
        if at < len(runs) and runs[at][:2] == (epoch, version + 1):
            last = runs.pop(at).last
        if at and runs[at - 1].epoch == epoch and runs[at - 1].last >= version - 1:
            before = runs.pop(at - 1)
            at, first, last = at - 1, before.first, max(last, before.last)
        runs.insert(at, Run(epoch, first, last))

    def cut(self, after: Position, epoch: int) -> list[Run]:
        """Remove and return what is after a position, and in an epoch before ``epoch``."""
        kept, found = [], []
        for run in self._runs:
            if run.epoch >= epoch or (run.epoch, run.last) <= after:
                kept.append(run)
            elif (run.epoch, run.first) > after:
                found.append(run)
            else:
                kept.append(run._replace(last=after.version))
                found.append(run._replace(first=after.version + 1))
        self._runs = kept
        return found


@dataclass
class _Shown:
    """A loss, and the event that names it: as of an epoch, because a failover can lose events as well."""

    at_seconds: float
    lost: Lost
    event: str | None = None
    epoch: int = 0


class Losses:
    """Compares what was acknowledged with where each new epoch of the log starts. For one thread, bar ``recent``.

    ``acknowledged``: to which any thread adds the position of each acknowledged write.
    """

    def __init__(self, history: History, events: Events, monotonic: Callable[[], float]) -> None:
        self.acknowledged: deque[Position] = deque(maxlen=_ACKNOWLEDGED_MAX)
        self._positions = Positions()
        self._history, self._events, self._monotonic = history, events, monotonic
        self._epoch: int | None = None  # up to which the starts are known
        self._starts: list[tuple[int, Position | None]] = []
        self._shown: list[_Shown] = []

    def find(self, head: Position) -> list[Lost]:
        """Return what the epochs of the log lack and was not returned before. Raises ``broker.errors.LogError``."""
        if head.epoch != self._epoch:
            self._starts = self._find_starts(head.epoch)
            self._epoch = head.epoch if self._starts else None  # otherwise the head was another server's
        self._positions.add([self.acknowledged.popleft() for _ in range(len(self.acknowledged))])
        found = []
        for epoch, origin in self._starts:  # again, for a write whose reply came late
            runs = self._positions.cut(origin or Position(0, 0), epoch)
            if runs and origin is not None:  # a reset loses nothing unasked
                found.append(Lost(runs, origin))
        now_seconds = self._monotonic()
        kept = [shown for shown in self._shown if now_seconds - shown.at_seconds < _SHOWN_SECONDS]
        self._shown = [*kept, *(_Shown(now_seconds, lost) for lost in found)]
        return found

    def _find_starts(self, epoch: int) -> list[tuple[int, Position | None]]:
        """Return the log's newest epochs, and where each continues from. Not every epoch that was seen is among them: a
        former master that is master again lacks those that others have started.
        """
        found: list[tuple[int, Position | None]] = []
        while epoch and len(found) < _STARTS:
            entries = self._history.after(Position(epoch - 1, _LAST_VERSION), 1)
            if not entries or entries[0].op != "epoch" or entries[0].position.epoch != epoch:  # it was trimmed
                break
            origin = entries[0].goes_on_from
            found.insert(0, (epoch, origin))
            epoch = origin.epoch if origin is not None else 0
        return found

    def announce(self) -> None:
        """Publish the event of each loss of the last minutes that the log does not have. Raises ``LogError``."""
        for shown in self._shown:
            if shown.event is None or shown.epoch != self._epoch:
                if shown.event is None or not self._events.has(shown.event):
                    lost = shown.lost
                    count, positions = str(lost.writes), lost.positions(_IN_EVENT_MAX)
                    shown.event = self._events.publish("lost", count=count, positions=positions, after=str(lost.after))
                shown.epoch = self._epoch or 0

    def recent(self) -> list[str]:
        """Describe the losses of the last minutes."""
        now_seconds = self._monotonic()
        return [str(shown.lost) for shown in self._shown if now_seconds - shown.at_seconds < _SHOWN_SECONDS]
