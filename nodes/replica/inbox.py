"""The delay line between the thread that reads the log and the thread that applies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from broker.delay import Schedule
from broker.delay.line import DelayLine
from broker.entry import Entry
from broker.position import Position


class Inbox:
    """A ``DelayLine`` shared by two threads, each of which can wait for the other. ``len()`` counts its entries."""

    def __init__(self, line: DelayLine, now_us: Callable[[], int]) -> None:
        self._line = line
        self._now_us = now_us
        self._condition = threading.Condition()
        self._closed = False
        self._paused = False
        self._rest_us = 0  # the pause after each entry while the rate is limited
        self._rest_until_us = 0

    def __len__(self) -> int:
        return len(self._line)

    def offer(self, entries: list[Entry]) -> list[Position]:
        """Add entries; return the positions that a new epoch among them has made void."""
        with self._change():
            return self._line.offer(entries)

    def due(self, limit: int) -> list[tuple[Entry, int]]:
        """The entries that are due now, each with the time at which it became due."""
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
        self._wait_until(self._next_due_us)

    def hold(self, entry: Entry) -> bool:
        """Return ``True`` when an entry that is not in the line is due, ``False`` if the inbox is closed before."""
        return self._wait_until(lambda: self._line.due_us(entry))

    def wait_until_empty(self) -> bool:
        """Return ``True`` when no entry waits any more, ``False`` if the inbox is closed before."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or not self._line)
            return not self._closed

    def wait_for_room(self) -> int:
        """Wait until entries can be offered; return how many, 0 if the inbox is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._line.room > 0)
            return 0 if self._closed else self._line.room

    def close(self) -> None:
        with self._change():
            self._closed = True

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._condition:
            yield
            self._condition.notify_all()

    def _next_due_us(self) -> int | None:
        due_us = self._line.next_due_us()
        return None if due_us is None else max(due_us, self._rest_until_us)

    def _wait_until(self, due_us: Callable[[], int | None]) -> bool:
        with self._condition:
            while not self._closed:
                found_us = None if self._paused else due_us()
                left_us = None if found_us is None else found_us - self._now_us()
                if left_us is not None and left_us <= 0:
                    return True
                self._condition.wait(None if left_us is None else left_us / 1e6)
            return False
