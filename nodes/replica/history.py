"""What a replica applied lately, and when: the evidence behind its numbers."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

from broker.position import Position

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
        self._ring: list[Applied] = []
        self._capacity = capacity
        self._next = 0
        self._lock = threading.Condition()
        self._index: dict[Position, int] = {}
        self._count = 0
        self._waiting = 0
        self._closed = False

    @property
    def count(self) -> int:
        """How many have been applied since the process began."""
        return self._count

    def extend(self, applied: Iterable[Applied]) -> None:
        """Remember these too, and forget the oldest where there are too many."""
        with self._lock:
            for one in applied:
                self._add(one)
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
            return self._ring[self._next - 1] if self._ring else None

    def find(self, position: Position) -> Applied | None:
        """When the entry at this position was applied, where that is remembered."""
        with self._lock:
            slot = self._index.get(position)
            return None if slot is None else self._ring[slot]

    def after(self, position: Position, limit: int) -> list[Applied]:
        """What was applied after this position, oldest first, at most ``limit``."""
        with self._lock:
            start = self._next if len(self._ring) == self._capacity else 0
            known = self._index.get(position)
            if known is not None:
                start = known + 1
            size = len(self._ring)
            span = (self._next - start) % size if known is not None and size else size
            ordered = (self._ring[(start + step) % size] for step in range(span))
            found: list[Applied] = []
            for applied in ordered:
                if applied.position > position:
                    found.append(applied)
                    if len(found) == limit:
                        break
            return found

    def since(self, count: int, limit: int, timeout_seconds: float) -> tuple[list[Applied], int]:
        """What was applied after the first ``count``, waiting for the first of it; and the count up to its end.

        At most ``limit``, oldest first; of what is not remembered any more, nothing. At most 64 wait; who comes then is
        answered at once.
        """
        with self._lock:
            if self._count <= count and self._waiting < _WAITING_MAX:
                self._waiting += 1
                self._lock.wait_for(lambda: self._closed or self._count > count, timeout_seconds)
                self._waiting -= 1
            first = max(count, self._count - len(self._ring))
            last = min(self._count, first + limit)
            size = len(self._ring)
            found = [self._ring[(self._next - self._count + step) % size] for step in range(first, last)]
            return found, max(last, count)

    def _add(self, applied: Applied) -> None:
        if len(self._ring) < self._capacity:
            self._ring.append(applied)
        else:
            if self._index.get(oldest := self._ring[self._next].position) == self._next:
                del self._index[oldest]
            self._ring[self._next] = applied
        self._index[applied.position] = self._next
        self._next = (self._next + 1) % self._capacity
        self._count += 1
