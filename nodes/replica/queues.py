"""The queues between a replica's threads: entries until they are applied, and then until acknowledged."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import islice
from typing import Generic, NamedTuple

from broker.delay.line import DelayLine, E, Schedule
from broker.entry import Entry, Operation
from broker.group import Group
from broker.position import Position
from broker.report import POSITIONS_MAX, Report
from nodes.replica.history import Done, Recent
from nodes.runtime.gate import EMPTY_STATE, PositionGate, State

_BATCH = POSITIONS_MAX  # positions in one acknowledgement
_QUEUED_MAX = 200_000  # entries, at which the reader is held back
_ENTRY_BYTES = 300  # of memory, about
_REPORT_US = 50_000  # between two reports in which nothing is acknowledged


class _Queue(Generic[E]):
    """A delay line, and a condition for threads to wait on, until it is closed."""

    def __init__(self, line: DelayLine[E], clock_us: Callable[[], int]) -> None:
        self._condition, self._closed = threading.Condition(), False
        self._line, self._clock_us, self._seen_us = line, clock_us, 0

    def close(self) -> None:
        with self._change():
            self._closed = True

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._condition:
            yield
            self._condition.notify_all()

    def _wait_until_due(self, due_us: Callable[[], int | None]) -> bool:
        """Return ``True`` once something is due, ``False`` on close. ``due_us`` is ``None`` while nothing waits."""
        with self._condition:
            while not self._closed:
                now_us, found_us = self._now_us(), due_us()
                if found_us is not None and found_us <= now_us:
                    return True
                self._condition.wait(None if found_us is None else (found_us - now_us) / 1e6)
            return False

    def set_schedule(self, schedule: Schedule) -> None:
        """Change the delay, also of what already waits."""
        with self._change():
            self._line.set_schedule(schedule, self._now_us())

    def clock_changed(self) -> None:
        with self._change():
            self._now_us()

    def _now_us(self) -> int:
        """The time, to which what waits is adapted if the clock was set back: another log server's can be ahead."""
        now_us = self._clock_us()
        self._line.set_clock(now_us)
        if now_us < self._seen_us:
            self._set_back(now_us)
        self._seen_us = now_us
        return now_us

    def _set_back(self, now_us: int) -> None:
        """Adapt what depends on a time that was ahead."""


class Inbox(_Queue[Entry]):
    """A ``DelayLine`` shared by two threads that can wait for each other. ``len()`` counts its entries."""

    def __init__(self, line: DelayLine[Entry], now_us: Callable[[], int]) -> None:
        super().__init__(line, now_us)
        self._paused, self._rest_until_us = False, 0
        self._rest_us = 0  # the pause after each entry while the rate is limited

    def __len__(self) -> int:
        return len(self._line)

    def offer(self, entries: list[Entry]) -> list[Position]:
        """Add entries; return the positions invalidated by a new epoch among them."""
        with self._change():
            return self._line.offer(entries)

    def due(self, limit: int) -> list[tuple[Entry, int]]:
        """The entries due now, each with its due time."""
        with self._condition:
            now_us = self._now_us()
            if self._paused or now_us < self._rest_until_us:
                return []
            return self._line.due(now_us, 1 if self._rest_us else limit)

    def __contains__(self, position: Position) -> bool:
        with self._condition:
            return position in self._line

    @contextmanager
    def taking(self, due: list[tuple[Entry, int]]) -> Iterator[None]:
        """Take applied entries in one step with the block: to other threads, they wait until it has ended."""
        with self._change():
            yield
            self._line.take(due)
            self._rest_until_us = self._now_us() + self._rest_us if self._rest_us else 0

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """Drop all entries in one step with the block, none if it raises."""
        with self._change():
            yield
            self._line.clear()

    def set_paused(self, *, paused: bool) -> None:
        with self._change():
            self._paused = paused

    def set_rate(self, entries_per_second: float | None) -> None:
        """Limit the rate at which entries become due, one at a time; ``None`` removes the limit."""
        with self._change():
            self._rest_us = round(1e6 / entries_per_second) if entries_per_second else 0
            self._rest_until_us = 0

    def _set_back(self, _now_us: int) -> None:
        self._rest_until_us = 0

    def wait_until_due(self) -> None:
        """Return when an entry is due, or the inbox is closed."""
        self._wait_until_due(lambda: self._when(self._line.next_due_us(), self._rest_until_us))

    def hold(self, entry: Entry) -> bool:
        """Return ``True`` once an entry outside the line is due, ``False`` if the inbox is closed first."""
        return self._wait_until_due(lambda: self._when(self._line.due_us(entry)))

    def wait_until_empty(self) -> bool:
        """Return ``True`` once no entries wait, ``False`` if the inbox is closed first."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or not self._line)
            return not self._closed

    def wait_for_room(self) -> int:
        """Wait until entries can be offered; return how many, 0 if the inbox is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._line.room > 0)
            return 0 if self._closed else self._line.room

    def _when(self, due_us: int | None, not_before_us: int = 0) -> int | None:
        return None if self._paused or due_us is None else max(due_us, not_before_us)


class Unacknowledged(NamedTuple):
    """An applied entry without its value; times in microseconds since 1970 by the log's clock.

    ``at_us``: when it was applied or, if delivered again, when this process received it.
    """

    position: Position
    at_us: int
    published_us: int
    traceparent: str = ""

    @property
    def op(self) -> Operation:
        return "set"  # also for an epoch, which is acknowledged like every other entry

    @property
    def size_bytes(self) -> int:
        return _ENTRY_BYTES


class Acknowledger(_Queue[Unacknowledged]):
    """Acknowledges applied entries when they are due, and reports it to the log server.

    A failed batch is sent again: acknowledging twice is harmless. ``len()`` counts the unacknowledged entries.
    ``gate`` has the position up to which everything is applied and acknowledged, once that is known; ``history`` has
    the newest acknowledged entries, each before the gate shows it.
    """

    def __init__(
        self, group: Group, now_us: Callable[[], int], gate: PositionGate, history: Recent, is_lost: Callable[[], bool]
    ) -> None:
        """``is_lost`` decides for each acknowledgement whether to drop it; the entry then waits for ``add``."""
        super().__init__(DelayLine(max_entries=_QUEUED_MAX, max_bytes=_QUEUED_MAX * _ENTRY_BYTES), now_us)
        self.gate, self.history, self._group, self._is_lost = gate, history, group, is_lost
        self._lost: set[Position] = set()
        self._unconfirmed: set[Position] = set()  # of the lost ones: not seen pending since ``recovering``
        self._sent: set[Position] = set()  # without those delivered again since: they stay in the line
        self._void: set[Position] = set()
        self._oldest: list[Position] = []  # a heap, in which acknowledged positions stay until they reach the top
        self._through: Position | None = None
        self._reported = (0, 0)  # when, and how many unacknowledged entries

    def __len__(self) -> int:
        return len(self._line) + len(self._lost)

    @property
    def position(self) -> Position | None:
        """The acknowledged position; ``None`` until the entries left pending by an earlier process are known."""
        return None if self._through is None else self.gate.state.position

    def add(self, entries: Sequence[Entry], through: Position | None = None) -> None:
        """Add applied entries; everything up to ``through`` is now applied."""
        with self._change():
            now_us = self._now_us()
            self._sent.difference_update(entry.position for entry in entries)
            fresh = [entry for entry in entries if entry.position not in self._line]
            self._line.offer([Unacknowledged(one.position, now_us, one.at_us, one.traceparent) for one in fresh])
            for one in fresh:
                self._lost.discard(one.position)
                self._unconfirmed.discard(one.position)
                heappush(self._oldest, one.position)
            if through is not None and self._through is not None:
                self._through = max(self._through, through)

    def discard(self, positions: Iterable[Position]) -> None:
        """Acknowledge entries immediately that have no effect here: void, or gone from the log."""
        with self._change():
            self._void.update(positions)

    def recovering(self) -> None:
        """Every pending entry is about to be added."""
        with self._change():
            self._unconfirmed = set(self._lost)

    def recovered(self, applied: Position) -> None:
        """Every pending entry up to ``applied`` has been added, so the acknowledged position is known."""
        with self._change():
            self._lost -= self._unconfirmed  # an earlier acknowledgement of each had arrived
            self._through = max(self._through or applied, applied)
            self._advance([])

    def forget(self) -> None:
        """Drop everything: a snapshot replaces the content, and what is still pending is added again."""
        with self._change():
            self._line.clear()
            self._lost, self._void, self._oldest = set(), set(), []
            self._through = None
            self.gate.replace(EMPTY_STATE)

    def step(self) -> tuple[list[Unacknowledged], int]:
        """Acknowledge what is due, at most a batch; return it, and when that was. Raises ``LogError``."""
        with self._change():
            due, void = self._line.due(self._now_us(), _BATCH), list(islice(self._void, _BATCH))
            sent = [pair for pair in due if not self._is_lost()]
            self._sent = {one.position for one, _ in sent}
            lost = [pair for pair in due if pair[0].position not in self._sent]
            self._line.take(lost)
            self._lost.update(one.position for one, _ in lost)
        positions = [one.position for one, _ in sent]
        now_us, left = self._clock_us(), len(self) - len(positions)
        if due or void or self._unreported():
            self._group.acknowledge([*positions, *void], Report(self._group.replica, now_us, left, positions))
        acknowledged_us = self._clock_us()
        self.history.extend([Done(one.position, one.published_us, due_us, acknowledged_us) for one, due_us in sent])
        with self._change():
            self._reported = now_us, left
            self._void.difference_update(void)
            self._line.take([pair for pair in sent if pair[0].position in self._sent])
            self._advance(positions)
        return [one for one, _ in sent], acknowledged_us

    def wait(self) -> None:
        """Return when an acknowledgement or a report is due, or on close."""
        self._wait_until_due(self._next_us)

    def wait_for_room(self) -> None:
        """Return when the queue has room, or on close."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or len(self) < _QUEUED_MAX)

    def _set_back(self, now_us: int) -> None:
        waiting = [one._replace(at_us=min(one.at_us, now_us)) for one in self._line]
        self._line.clear()
        self._line.offer(waiting)
        self._reported = min(self._reported[0], now_us), self._reported[1]

    def _next_us(self) -> int | None:
        if self._void:
            return 0
        report_us = self._reported[0] + _REPORT_US if self._unreported() else None
        return min((at_us for at_us in (self._line.next_due_us(), report_us) if at_us is not None), default=None)

    def _unreported(self) -> bool:
        return self._reported[1] != len(self)

    def _advance(self, acknowledged: list[Position]) -> None:
        if not len(self):
            self._oldest.clear()
        while self._oldest and self._oldest[0] not in self._line and self._oldest[0] not in self._lost:
            heappop(self._oldest)
        if self._through is None:
            return
        through, oldest = self._through, next(iter(self._oldest), None)
        if oldest is not None and oldest <= through:
            through = Position(oldest.epoch, oldest.version - 1) if oldest.version else self.gate.state.position
        self.gate.advance(State(through, None, None), acknowledged)
