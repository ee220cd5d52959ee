"""The acknowledger: entries that are durable in the store stop being pending."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from broker.group import Group
from broker.position import Position

_BATCH = 1000  # positions in one command
_QUEUED_MAX = 200_000  # positions, at which the reader is held back


class Acknowledger:
    """Acknowledges applied positions in batches, each ``ack_delay_ms`` after it was added.

    A batch that fails is sent again: acknowledging twice is harmless. ``len()`` counts the positions that wait.
    """

    def __init__(
        self, group: Group, ack_delay_ms: float, now_us: Callable[[], int], is_lost: Callable[[], bool] = lambda: False
    ) -> None:
        """``now_us`` is any clock that is never set; ``is_lost`` decides for each position whether to drop it."""
        self._group = group
        self._ack_delay_us = ack_delay_ms * 1000
        self._now_us = now_us
        self._is_lost = is_lost
        self._condition = threading.Condition()
        self._queue: deque[tuple[int, list[Position]]] = deque()
        self._waiting = 0
        self._closed = False

    def __len__(self) -> int:
        return self._waiting

    def set_delay(self, ack_delay_ms: float) -> None:
        with self._condition:
            self._ack_delay_us = ack_delay_ms * 1000
            self._condition.notify_all()

    def add(self, positions: list[Position]) -> None:
        now_us = self._now_us()
        with self._condition:
            for first in range(0, len(positions), _BATCH):
                self._queue.append((now_us, positions[first : first + _BATCH]))
            self._waiting += len(positions)
            self._condition.notify_all()

    def step(self) -> bool:
        """Acknowledge one batch of what is due; ``False`` if nothing was. Raises ``broker.errors.LogError``."""
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
        with self._condition:
            for _ in range(taken):
                self._queue.popleft()
            self._waiting -= len(batch)
            self._condition.notify_all()
        return True

    def wait(self) -> None:
        """Return when a batch is due, or on close."""
        with self._condition:
            while not self._closed:
                left_us = self._queue[0][0] + self._ack_delay_us - self._now_us() if self._queue else None
                if left_us is not None and left_us <= 0:
                    return
                self._condition.wait(None if left_us is None else left_us / 1e6)

    def wait_for_room(self) -> None:
        """Return when the queue has room, or on close."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._waiting < _QUEUED_MAX)

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
