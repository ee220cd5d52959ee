"""The entries that a replica has most recently applied, or acknowledged, with their times."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from broker.position import Position
from nodes.runtime import caller

_WAITING_MAX = 64  # requests that wait for the next entry


class HistoryBusy(Exception):
    """Raised if too many requests wait for the next entry; an empty response would make the client poll."""


class Done(NamedTuple):
    """When an entry was published, was due, and was applied or acknowledged: in microseconds since 1970 by the log's
    clock.
    """

    position: Position
    at_us: int
    due_us: int
    done_us: int


class Recent:
    """The newest ``capacity`` entries, in the order in which they were applied or acknowledged. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._newest: deque[Done] = deque(maxlen=capacity)
        self._lock = threading.Condition()
        self.count = 0  # of all entries so far
        self._waiting, self._closed = 0, False

    def extend(self, done: Collection[Done]) -> None:
        with self._lock:
            self._newest.extend(done)
            self.count += len(done)
            if self._waiting:
                self._lock.notify_all()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def newest(self) -> Done | None:
        with self._lock:
            return self._newest[-1] if self._newest else None

    def find(self, position: Position) -> Done | None:
        """The entry at this position; ``None`` if not done or forgotten."""
        with self._lock:
            return next((done for done in reversed(self._newest) if done.position == position), None)

    def after(self, position: Position, limit: int) -> list[Done]:
        """At most ``limit`` entries after this position, oldest first."""
        with self._lock:
            not_yet = itertools.takewhile(lambda done: done.position != position, reversed(self._newest))
            later = [done for done in not_yet if done.position > position]
        return later[::-1][:limit]

    def since(self, count: int, limit: int, timeout_seconds: float) -> tuple[list[Done], int]:
        """Wait for entries after the first ``count``; return them and the count at their end.

        At most ``limit``, oldest first, without forgotten entries. Raises ``HistoryBusy`` if 64 requests already wait.
        """
        with self._lock:
            if self.count <= count and timeout_seconds > 0:
                self._wait_beyond(count, timeout_seconds)
            first = max(count, self.count - len(self._newest))
            last = min(self.count, first + limit)
            return self._between(first, last), max(last, count)

    def _wait_beyond(self, count: int, timeout_seconds: float) -> None:
        def arrived(seconds: float) -> bool:
            return self._lock.wait_for(lambda: self._closed or self.count > count, seconds)

        if self._waiting >= _WAITING_MAX:
            raise HistoryBusy(f"{_WAITING_MAX} requests already wait for the next entry; try again shortly")
        self._waiting += 1
        try:
            caller.wait(arrived, timeout_seconds, time.monotonic)
        finally:
            self._waiting -= 1

    def _between(self, first: int, last: int) -> list[Done]:
        """Entries from number ``first`` up to ``last``, exclusive; fast for the newest, which most requests need."""
        backwards = itertools.islice(reversed(self._newest), self.count - last, max(self.count - first, 0))
        return list(backwards)[::-1]
