"""The delay line between the thread that reads the log and the thread that applies."""

from __future__ import annotations

import threading
from collections.abc import Callable

from broker.delay.line import DelayLine, Schedule
from broker.entry import Entry
from broker.position import Position


class Inbox:
    """A ``DelayLine`` that two threads share: either may wait for what the other does."""

    def __init__(self, line: DelayLine, now_us: Callable[[], int]) -> None:
        self._line = line
        self._now_us = now_us
        self._changed = threading.Condition()
        self._closed = False
        self._paused = False
        self._rest_us = 0  # after each entry, where the rate is limited
        self._rest_until_us = 0

    def __len__(self) -> int:
        """How many entries wait."""
        return len(self._line)

    def offer(self, entries: list[Entry]) -> list[Position]:
        """Let entries wait; returns the positions that a new epoch among them made void."""
        with self._changed:
            void = self._line.offer(entries)
            self._changed.notify_all()
            return void

    def due(self, limit: int) -> list[tuple[Entry, int]]:
        """The entries that are due now, each with when it became so."""
        with self._changed:
            now_us = self._now_us()
            if self._paused or now_us < self._rest_until_us:
                return []
            return self._line.due(now_us, 1 if self._rest_us else limit)

    def take(self, due: list[tuple[Entry, int]]) -> None:
        """Drop what has been applied."""
        with self._changed:
            self._line.take(due)
            self._rest_until_us = self._now_us() + self._rest_us if self._rest_us else 0
            self._changed.notify_all()

    def clear(self) -> None:
        """Drop everything."""
        with self._changed:
            self._line.clear()
            self._changed.notify_all()

    def set_schedule(self, schedule: Schedule) -> None:
        """Change the delay, also of what waits."""
        with self._changed:
            self._line.set_schedule(schedule, self._now_us())
            self._changed.notify_all()

    def set_paused(self, *, paused: bool) -> None:
        """Let nothing be due any more, or again what is."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def set_rate(self, entries_per_second: float | None) -> None:
        """Let so many entries a second be due at the most, one at a time; ``None``: any number."""
        with self._changed:
            self._rest_us = round(1e6 / entries_per_second) if entries_per_second else 0
            self._rest_until_us = 0
            self._changed.notify_all()

    def look_again(self) -> None:
        """What is due may be another, because the clock was set."""
        with self._changed:
            self._rest_until_us = 0
            self._line.set_clock(self._now_us())
            self._changed.notify_all()

    def wait_until_due(self) -> None:
        """Return when an entry is due, or the inbox is closed."""
        with self._changed:
            while not self._closed:
                due_us = self._next_due_us()
                if due_us is not None and due_us <= self._now_us():
                    return
                self._wait_until(due_us)

    def hold(self, entry: Entry) -> bool:
        """Return ``True`` when an entry that is not in the line is due, ``False`` when the inbox is closed before."""
        with self._changed:
            while not self._closed:
                due_us = None if self._paused else self._line.due_us(entry)
                if due_us is not None and due_us <= self._now_us():
                    return True
                self._wait_until(due_us)
            return False

    def wait_until_empty(self) -> bool:
        """Return ``True`` when nothing waits any more, ``False`` when the inbox is closed before."""
        with self._changed:
            while not self._closed and len(self._line):
                self._changed.wait()
            return not self._closed

    def wait_for_room(self) -> int:
        """How many more entries may be offered; waits while there is no room, and returns 0 once closed."""
        with self._changed:
            while not self._closed and self._line.room <= 0:
                self._changed.wait()
            return 0 if self._closed else self._line.room

    def close(self) -> None:
        """Wake both threads for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next_due_us(self) -> int | None:
        due_us = None if self._paused else self._line.next_due_us()
        return None if due_us is None else max(due_us, self._rest_until_us)

    def _wait_until(self, due_us: int | None) -> None:
        """Wait for a change, or until then."""
        self._changed.wait(None if due_us is None else max(0, due_us - self._now_us()) / 1e6)
