"""Acknowledging: what is durable in the store is pending no longer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from broker.log import ReplicationLog
from broker.position import Position

_BATCH = 1000
_QUEUED_MAX = 200_000


class Acknowledger:
    """Acknowledges applied positions in batches, each ``ack_delay_ms`` after it was handed over.

    A batch that fails is sent again: acknowledging twice is harmless. At most 200,000 positions queue; while they do,
    ``wait_for_room`` holds back who reads more.
    """

    def __init__(self, log: ReplicationLog, replica: str, ack_delay_ms: float, now_us: Callable[[], int]) -> None:
        """``now_us`` is any clock that is never set."""
        self._group = log.group(replica)
        self._ack_delay_us = ack_delay_ms * 1000
        self._now_us = now_us
        self._changed = threading.Condition()
        self._queue: deque[tuple[int, list[Position]]] = deque()
        self._waiting = 0
        self._closed = False
        self.is_lost: Callable[[], bool] | None = None  # asked for each acknowledgement, where some are to be lost

    def __len__(self) -> int:
        """How many positions wait to be acknowledged."""
        return self._waiting

    def set_delay(self, ack_delay_ms: float) -> None:
        """Change how long acknowledgements are held back, also of what waits."""
        with self._changed:
            self._ack_delay_us = ack_delay_ms * 1000
            self._changed.notify_all()

    def add(self, positions: list[Position]) -> None:
        """Hand over positions whose effect is durable."""
        now_us = self._now_us()
        with self._changed:
            for first in range(0, len(positions), _BATCH):
                self._queue.append((now_us, positions[first : first + _BATCH]))
            self._waiting += len(positions)
            self._changed.notify_all()

    def step(self) -> bool:
        """Acknowledge one batch of what is due; ``False`` when nothing was. Raises ``broker.errors.LogError``."""
        due_us = self._now_us() - self._ack_delay_us
        with self._changed:
            taken, batch = 0, list[Position]()
            for handed_us, positions in self._queue:
                if handed_us > due_us or len(batch) + len(positions) > _BATCH:
                    break
                batch += positions
                taken += 1
        if not batch:
            return False
        is_lost = self.is_lost
        sent = batch if is_lost is None else [position for position in batch if not is_lost()]
        if sent:
            self._group.acknowledge(sent)
        with self._changed:
            for _ in range(taken):
                self._queue.popleft()
            self._waiting -= len(batch)
            self._changed.notify_all()
        return True

    def wait(self) -> None:
        """Return when something is due, or on close."""
        with self._changed:
            while not self._closed:
                left_us = None
                if self._queue:
                    left_us = self._queue[0][0] + self._ack_delay_us - self._now_us()
                    if left_us <= 0:
                        return
                self._changed.wait(None if left_us is None else left_us / 1e6)

    def wait_for_room(self) -> None:
        """Return when the queue has room again, or on close."""
        with self._changed:
            while not self._closed and self._waiting >= _QUEUED_MAX:
                self._changed.wait()

    def close(self) -> None:
        """Wake everybody for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
