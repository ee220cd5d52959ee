"""Places for requests that may wait: so many, so that others are answered meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nodes.http.problem import Problem, busy


class Places:
    """At most ``count`` at once. Thread-safe."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = threading.Semaphore(count)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place. Raises ``Problem`` 503 where none is free."""
        if not self._free.acquire(blocking=False):
            raise too_many_waiters(self._count)
        try:
            yield
        finally:
            self._free.release()


def too_many_waiters(count: int) -> Problem:
    """What to answer where so many requests wait already."""
    detail = f"{count} requests wait on this node already, which is its bound; try again shortly."
    return busy("too-many-waiters", "Too many waiters", detail)
