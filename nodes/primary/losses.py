"""The writes that this primary has acknowledged, to name those that the log has lost."""

from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from broker.history import History
from broker.position import Position

_ACKNOWLEDGED_MAX = 200_000  # since the last comparison
_RUNS_MAX = 10_000
_NAMED_MAX = 20  # in a text
_IN_EVENT_MAX = 200  # runs: about 4 KB
_SHOWN_SECONDS = 300.0
_STARTS = 4  # the newest starts of epochs, for which late replies are considered
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

    def parts(self) -> Iterator["Lost"]:
        """Split it into parts whose positions fit into an event: all are named."""
        for first in range(0, len(self.runs), _IN_EVENT_MAX):
            yield Lost(self.runs[first : first + _IN_EVENT_MAX], self.after)

    def positions(self, count: int = _IN_EVENT_MAX) -> str:
        more = len(self.runs) - count
        return ", ".join(map(str, self.runs[:count])) + (f" and {more} more ranges" if more > 0 else "")

    def __str__(self) -> str:
        writes = "1 acknowledged write" if self.writes == 1 else f"{self.writes} acknowledged writes"
        which = self.positions(_NAMED_MAX)
        return f"the log lost {writes}, {which}: it ended at {self.after} when another server took over"


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


class Losses:
    """Compares what was acknowledged with where each new epoch of the log starts. Used by one thread.

    ``acknowledged``: to which any thread adds the position of each acknowledged write.
    """

    def __init__(self, history: History, monotonic: Callable[[], float]) -> None:
        self.acknowledged: deque[Position] = deque(maxlen=_ACKNOWLEDGED_MAX)
        self._positions = Positions()
        self._history, self._monotonic = history, monotonic
        self._epoch: int | None = None  # up to which the log's epochs are known
        self._starts: deque[tuple[int, Position | None]] = deque(maxlen=_STARTS)
        self._shown: list[tuple[float, Lost]] = []

    def find(self, head: Position) -> list[Lost]:
        """Return what the epochs lack that started since the last call. Raises ``broker.errors.LogError``."""
        while self._epoch is not None and self._epoch < head.epoch:
            entries = self._history.after(Position(self._epoch, _LAST_VERSION), 1)
            if not entries:
                break
            self._epoch = entries[0].position.epoch
            self._starts.append((self._epoch, entries[0].goes_on_from))
        self._epoch = head.epoch
        self._positions.add([self.acknowledged.popleft() for _ in range(len(self.acknowledged))])
        found = []
        for epoch, origin in self._starts:  # again, for a write whose reply came late
            runs = self._positions.cut(origin or Position(0, 0), epoch)
            if runs and origin is not None:  # a reset loses nothing unasked
                found.append(Lost(runs, origin))
        self._shown += [(self._monotonic(), lost) for lost in found]
        return found

    def recent(self) -> list[str]:
        """Describe the losses of the last minutes."""
        self._shown = [(at, lost) for at, lost in self._shown if self._monotonic() - at < _SHOWN_SECONDS]
        return [str(lost) for _, lost in self._shown]
