"""The queues between a replica's threads: entries until they are applied, and positions until acknowledged."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from broker.delay.line import DelayLine, Schedule
from broker.entry import Entry
from broker.group import Group
from broker.position import Position

_BATCH = 1000  # positions in one acknowledgement
_QUEUED_MAX = 200_000  # positions, at which the reader is held back


class _Queue:
    """A condition for threads to wait on, until it is closed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._closed = False

    def close(self) -> None:
        with self._change():
            self._closed = True

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._condition:
            yield
            self._condition.notify_all()

    def _wait_until_due(self, left_us: Callable[[], float | None]) -> bool:
        """Return ``True`` once no time is left, ``False`` on close. ``left_us`` is ``None`` while nothing is due."""
        with self._condition:
            while not self._closed:
                found_us = left_us()
                if found_us is not None and found_us <= 0:
                    return True
                self._condition.wait(None if found_us is None else found_us / 1e6)
            return False


class Inbox(_Queue):
    """A ``DelayLine`` shared by two threads that can wait for each other. ``len()`` counts its entries."""

    def __init__(self, line: DelayLine, now_us: Callable[[], int]) -> None:
        super().__init__()
        self._line = line
        self._now_us = now_us
        self._paused = False
        self._rest_us = 0  # the pause after each entry while the rate is limited
        self._rest_until_us = 0

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

    def take(self, due: list[tuple[Entry, int]]) -> None:
        with self._change():
            self._line.take(due)
            self._rest_until_us = self._now_us() + self._rest_us if self._rest_us else 0

    def clear(self) -> None:
        with self._change():
            self._line.clear()

    def set_schedule(self, schedule: Schedule) -> None:
        """Change the delay, also of waiting entries."""
        with self._change():
            self._line.set_schedule(schedule, self._now_us())

    def set_paused(self, *, paused: bool) -> None:
        with self._change():
            self._paused = paused

    def set_rate(self, entries_per_second: float | None) -> None:
        """Limit the rate at which entries become due, one at a time; ``None`` removes the limit."""
        with self._change():
            self._rest_us = round(1e6 / entries_per_second) if entries_per_second else 0
            self._rest_until_us = 0

    def clock_changed(self) -> None:
        with self._change():
            self._rest_until_us = 0
            self._line.set_clock(self._now_us())

    def wait_until_due(self) -> None:
        """Return when an entry is due, or the inbox is closed."""
        self._wait_until_due(lambda: self._left_us(self._line.next_due_us(), self._rest_until_us))

    def hold(self, entry: Entry) -> bool:
        """Return ``True`` once an entry outside the line is due, ``False`` if the inbox is closed first."""
        return self._wait_until_due(lambda: self._left_us(self._line.due_us(entry)))

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

    def _left_us(self, due_us: int | None, not_before_us: int = 0) -> int | None:
        return None if self._paused or due_us is None else max(due_us, not_before_us) - self._now_us()


class Acknowledger(_Queue):
    """Acknowledges applied positions in batches, each ``ack_delay_ms`` after it was added.

    A failed batch is sent again: acknowledging twice is harmless. ``len()`` counts the waiting positions.
    """

    def __init__(
        self, group: Group, ack_delay_ms: float, now_us: Callable[[], int], is_lost: Callable[[], bool] = lambda: False
    ) -> None:
        """``now_us`` is any clock that is never set; ``is_lost`` decides for each position whether to drop it."""
        super().__init__()
        self._group = group
        self._ack_delay_us = ack_delay_ms * 1000
        self._now_us = now_us
        self._is_lost = is_lost
        self._queue: deque[tuple[int, list[Position]]] = deque()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def set_delay(self, ack_delay_ms: float) -> None:
        with self._change():
            self._ack_delay_us = ack_delay_ms * 1000

    def add(self, positions: list[Position]) -> None:
        now_us = self._now_us()
        with self._change():
            self._queue.extend((now_us, positions[at : at + _BATCH]) for at in range(0, len(positions), _BATCH))
            self._waiting += len(positions)

    def step(self) -> bool:
        """Acknowledge one due batch; ``False`` if nothing was due. Raises ``broker.errors.LogError``."""
        due_us = self._now_us() - self._ack_delay_us
        with self._condition:
            taken, batch = 0, list[Position]()
            for added_us, positions in self._queue:
                if added_us > due_us or len(batch) + len(positions) > _BATCH:
                    break
                batch += positions
                taken += 1
        if not batch:
            return False
        sent = [position for position in batch if not self._is_lost()]
        if sent:
            self._group.acknowledge(sent)
        with self._change():
            for _ in range(taken):
                self._queue.popleft()
            self._waiting -= len(batch)
        return True

    def wait(self) -> None:
        """Return when a batch is due, or on close."""
        now_us = self._now_us
        self._wait_until_due(lambda: self._queue[0][0] + self._ack_delay_us - now_us() if self._queue else None)

    def wait_for_room(self) -> None:
        """Return when the queue has room, or on close."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._waiting < _QUEUED_MAX)
