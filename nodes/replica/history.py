"""What a replica applied lately, and when: the evidence behind its numbers."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from broker.position import Position
from nodes.runtime import caller
from nodes.runtime.gate import TooManyWaiters

_WAITING_MAX = 64


class Applied(NamedTuple):
    """One applied entry: published, due and applied, in microseconds since 1970 by the log's clock."""

    position: Position
    at_us: int
    due_us: int
    applied_us: int


class AppliedHistory:
    """The newest ``capacity`` applied entries, in the order of their application. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._newest: deque[Applied] = deque(maxlen=capacity)
        self._capacity = capacity
        self._lock = threading.Condition()
        self._numbers: dict[Position, int] = {}  # counted from 0; those of forgotten entries stay for a while
        self._count = 0
        self._waiting = 0
        self._closed = False

    @property
    def count(self) -> int:
        """How many have been applied since the process began."""
        return self._count

    def extend(self, applied: Collection[Applied]) -> None:
        """Remember these too, and forget the oldest where there are too many."""
        with self._lock:
            self._newest.extend(applied)
            self._numbers.update(zip((one.position for one in applied), itertools.count(self._count)))
            self._count += len(applied)
            if len(self._numbers) > 2 * self._capacity:
                self._numbers = dict(zip((one.position for one in self._newest), itertools.count(self._first)))
            if self._waiting:
                self._lock.notify_all()

    def close(self) -> None:
        """Wake everybody who waits."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def newest(self) -> Applied | None:
        """The entry applied last."""
        with self._lock:
            return self._newest[-1] if self._newest else None

    def find(self, position: Position) -> Applied | None:
        """When the entry at this position was applied, where that is remembered."""
        with self._lock:
            number = self._numbers.get(position, -1)
            return self._newest[number - self._first] if number >= self._first else None

    def after(self, position: Position, limit: int) -> list[Applied]:
        """What was applied after this position, oldest first, at most ``limit``."""
        with self._lock:
            first = max(self._numbers.get(position, -1) + 1, self._first)
            later = (applied for applied in self._between(first, self._count) if applied.position > position)
            return list(itertools.islice(later, limit))

    def since(self, count: int, limit: int, timeout_seconds: float) -> tuple[list[Applied], int]:
        """What was applied after the first ``count``, waiting for the first of it; and the count up to its end.

        At most ``limit``, oldest first; of what is not remembered any more, nothing. Raises ``TooManyWaiters`` while 64
        wait already: an empty answer at once would make its caller ask again without a pause.
        """
        with self._lock:
            if self._count <= count and timeout_seconds > 0:
                if self._waiting >= _WAITING_MAX:
                    raise TooManyWaiters(_WAITING_MAX)
                self._waiting += 1
                try:
                    caller.wait(lambda seconds: self._come(count, seconds), timeout_seconds, time.monotonic)
                finally:
                    self._waiting -= 1
            first = max(count, self._first)
            last = min(self._count, first + limit)
            return self._between(first, last), max(last, count)

    def _come(self, count: int, timeout_seconds: float) -> bool:
        return self._lock.wait_for(lambda: self._closed or self._count > count, timeout_seconds)

    @property
    def _first(self) -> int:
        """The number of the oldest that is remembered."""
        return self._count - len(self._newest)

    def _between(self, first: int, last: int) -> list[Applied]:
        """Those from number ``first`` up to ``last``, exclusive; found from the newest, near which most ask."""
        backwards = itertools.islice(reversed(self._newest), self._count - last, max(self._count - first, 0))
        return list(backwards)[::-1]
