"""What is judged of the log: after every change of a log server's content, and of what a client was told of it.

The judge keeps a model of each server's content, and knows every node and every server at once, which no client can.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from broker.entry import contribution
from broker.position import START, Position
from lab.simulation.model import Copy, Line, Logged, Newest, Step, Violation, forget_oldest
from lab.simulation.scheduler import Scheduler
from lab.simulation.trace import Trace

_MODULUS = 2**160
_CUTS_MAX = 100
_RUNS = re.compile(r"(\d+)-(\d+)(?: to \d+-(\d+))?")


class LogJudge:
    """Its methods are called as things happen, and raise ``Violation``."""

    def __init__(self, scheduler: Scheduler, trace: Trace) -> None:
        self._scheduler, self._trace = scheduler, trace
        self.lines: dict[str, Line] = {}
        self.copies: dict[str, Copy] = {}
        self.counts: Counter[str] = Counter()
        self._clock_steps: deque[Step] = deque(maxlen=64)
        self._entries: dict[Position, Logged] = {}
        self._digests: dict[Position, int] = {}
        self._positions: dict[str, list[Position]] = {}  # by write id
        self._named: dict[Position, str] = {}  # what was observed anywhere outside of the log
        self._acknowledged: dict[Position, int] = {}  # when; of writes, by a client
        self._refused: dict[str, None] = {}  # writes that a client was told are not applied
        self._void: dict[Position, None] = {}  # the starts of resets
        self.foreign: set[Position] = set()  # entries that another program has added
        self.newest = Newest()  # that the log or the primary still knows
        self.lost: dict[Position, Position] = {}  # acknowledged positions, and the start of the epoch that lacks them
        self.named_lost: set[Position] = set()
        self.holders: Callable[[], Mapping[str, Position]] = dict
        self.may_lose = False
        self._primary_since_ns = 0

    # -- the log ------------------------------------------------------------------------------------------------------

    def appended(self, server: str, changes: Sequence[Sequence[str]], rows: Sequence[Sequence[Any]]) -> None:
        """A server has executed an append: op, key, value and write id of each change, and the script's reply."""
        line = self.lines[server]
        for (op, key, value, write_id), row in zip(changes, rows, strict=True):
            if row[0] != "applied":
                continue
            position = Position(int(row[1]), int(row[2]))
            if not line.head.is_followed_by(position):
                raise Violation("positions have no gaps", f"{server} has {position} after {line.head}")
            other = self._named.get(position)
            if other is not None and other != write_id:
                raise Violation(
                    "a position names one change", f"{position} was {other}, and is {write_id} on {server} now"
                )
            if write_id in self._refused:
                raise Violation(
                    "a write reported as not applied stays so", f"{write_id} is at {position} on {server} now"
                )
            self._check_repeated(server, line, position, write_id)
            line.head = position
            line.set(key, int.from_bytes(contribution(write_id, key, value), "big") if op == "set" else None)
            self._log(position, Logged(write_id, self._scheduler.now_ns), line)
            self._positions.setdefault(write_id, []).append(position)
            self.counts["entries"] += 1

    def _check_repeated(self, server: str, line: Line, position: Position, write_id: str) -> None:
        for other in self._positions.get(write_id, ()):
            known = self._entries.get(other)
            if known is not None and known.write_id == write_id and other < position and line.lost_at(other) is None:
                raise Violation(
                    "a repeated write is applied once", f"{server} has {write_id} at {other}, and at {position} too"
                )

    def opened(self, server: str, outcome: str, position: Position, write_id: str) -> None:
        """A server has executed epoch.lua with this outcome."""
        line = self.lines[server]
        if outcome == "open":
            self._stays_open(server, line)
            return
        if outcome not in {"started", "continued"}:
            return
        if position.epoch <= line.head.epoch:
            raise Violation("epochs grow", f"{server} starts {position} after {line.head}")
        origin = line.head if outcome == "continued" else None
        if origin is None:
            line.records, line.total = {}, 0
            self._void[position] = None
        else:
            self._check_lost(origin, position)
            line.cuts = [*line.cuts[-_CUTS_MAX:], (origin, position)]
        line.head = position
        if max(self.holders().values(), default=START) <= position:  # of the epoch of this number that was lost
            self._forget_after(position)
        self._log(position, Logged(write_id, self._scheduler.now_ns, True, origin), line)
        self._trace.add(server, f"epoch {position}" + (f", which continues from {origin}" if origin else ""))

    def _stays_open(self, server: str, line: Line) -> None:
        """The log goes on in its epoch: then nothing of it that it lacks may be known to anyone."""
        for holder, position in self.holders().items():
            if position > line.head and position.epoch == line.head.epoch:
                raise Violation(
                    "a position names one change",
                    f"{server} goes on after {line.head} in the same epoch, but {holder} has seen {position}",
                )
        self._forget_after(line.head)

    def _forget_after(self, head: Position) -> None:
        """No node, or none that answers, knows any more what was after this: the gaps that the guarantees state."""
        if head < self.newest.position:
            self.newest = Newest(head, self.newest.losses + 1)
        known = max([head, *self.holders().values()])
        for position in [position for position in self._named if position > known]:
            del self._named[position]
            if self._acknowledged.pop(position, None) is not None:
                self.counts["acknowledged writes that the primary and the log lost together"] += 1

    def _log(self, position: Position, logged: Logged, line: Line) -> None:
        self._entries[position] = logged
        self._digests[position] = line.total % _MODULUS
        for known in (self._entries, self._digests, self._positions, self._refused):
            forget_oldest(known)

    def _check_lost(self, origin: Position, start: Position) -> None:
        """An epoch continues from ``origin``: every acknowledged write after it is lost."""
        for position in [position for position in self._acknowledged if origin < position < start]:
            at_ns = self._acknowledged.pop(position)
            if any(position < void < start for void in self._void):
                continue  # a reset had made it void
            if not self.may_lose:
                raise Violation(
                    "an acknowledged write is in the log",
                    f"{start} continues from {origin}, without {position}, although no fault took it",
                )
            if at_ns >= self._primary_since_ns:  # otherwise the primary that acknowledged it has ended
                self.lost[position] = start
            self.counts["acknowledged writes lost by a fault"] += 1

    def named(self, positions: str) -> None:
        """The lab has named these positions as lost."""
        for epoch, first, last in _RUNS.findall(positions):
            self.named_lost |= {Position(int(epoch), n) for n in range(int(first), int(last or first) + 1)}

    def primary_started(self) -> None:
        """Another process of the primary has started: it cannot name what the one before had acknowledged."""
        self._primary_since_ns = self._scheduler.now_ns
        self.lost.clear()

    def check_named(self, line: Line) -> None:
        """The lab has had time to name what is lost. A former master that is master again can have brought it back."""
        concealed = sorted(position for position in self.lost.keys() - self.named_lost if line.lost_at(position))
        if concealed:
            raise Violation(
                "lost writes are named",
                f"{len(concealed)} acknowledged writes are lost since {self.lost[concealed[0]]}, and not named: "
                f"{concealed[0]} to {concealed[-1]}",
            )
        self.lost.clear()
        self.named_lost.clear()

    def lags(self, lags: Mapping[str, tuple[int | None, int]]) -> None:
        """Each group has this lag, and so many entries left. Entries of another program can make the lag unknown."""
        for group, (lag, left) in lags.items():
            if lag != left and not (lag is None and self.foreign):
                raise Violation("lag is right", f"the group of {group} has lag {lag}, and {left} entries are left")

    # -- clients ------------------------------------------------------------------------------------------------------

    def acknowledged(self, position: Position, write_id: str, newest: Newest) -> None:
        """A client was told that its write has this position. ``newest`` of all when it was sent."""
        if newest.losses == self.newest.losses and position <= newest.position:
            raise Violation(
                "positions follow real time",
                f"{write_id} is acknowledged at {position}, and was sent after {newest.position}",
            )
        self.newest = self.newest._replace(position=max(self.newest.position, position))
        logged = self._entries.get(position)
        if logged is not None and logged.write_id != write_id:
            raise Violation(
                "a position names one change",
                f"{write_id} is acknowledged at {position}, where the log has {logged.write_id}",
            )
        self._observe(position, write_id)
        self._acknowledged[position] = self._scheduler.now_ns
        forget_oldest(self._acknowledged)
        self.counts["acknowledged"] += 1

    def refused(self, write_id: str) -> None:
        """A client was told that its write is not applied."""
        if found := self._positions.get(write_id):
            raise Violation("a write reported as not applied stays so", f"{write_id} is at {found[-1]}")
        self._refused[write_id] = None

    def epoch_of(self, write_id: str, version: int) -> int | None:
        """Return the epoch in which a write was given this version."""
        found = self._positions.get(write_id, ())
        return next((position.epoch for position in reversed(found) if position.version == version), None)

    def _observe(self, position: Position, write_id: str) -> None:
        other = self._named.setdefault(position, write_id)
        if other != write_id:
            raise Violation("a position names one change", f"{position} was {other}, and is {write_id} now")
        forget_oldest(self._named)
