"""An open loop: tasks start at their scheduled times, however long earlier ones take."""

import heapq
import itertools
import queue
import threading
from collections.abc import Callable

Task = Callable[[], None]


class OpenLoop:
    """Tasks that start at their scheduled times on ``threads`` threads. A task can add others.

    A loop that waited for each response before the next request would sample a slow system less often than a fast one.
    ``late_seconds`` lists how late each task started: large values mean that the load was not as intended.
    """

    def __init__(self, threads: int, monotonic: Callable[[], float]) -> None:
        self.late_seconds: list[float] = []
        self._monotonic = monotonic
        self._threads = threads
        self._changed = threading.Condition()
        self._later: list[tuple[float, int, Task]] = []
        self._order = itertools.count()
        self._running = 0
        self._failure: Exception | None = None
        self._stopped = False

    def at(self, due: float, task: Task) -> None:
        with self._changed:
            heapq.heappush(self._later, (due, next(self._order), task))
            self._changed.notify()

    def stop(self) -> None:
        """Start no more tasks, and let ``run`` return without waiting for running ones."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def run(self) -> None:
        """Return when all tasks are done, or at ``stop``. Raises any exception of a task."""
        ready: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        for number in range(self._threads):
            threading.Thread(target=self._work, args=(ready,), name=f"load-{number}", daemon=True).start()
        try:
            while (found := self._next()) is not None:
                due, task = found
                self.late_seconds.append(self._monotonic() - due)
                ready.put(task)
        finally:
            for _ in range(self._threads):
                ready.put(None)
        if self._failure is not None:
            raise self._failure

    def _next(self) -> tuple[float, Task] | None:
        with self._changed:
            while not self._stopped and self._failure is None:
                if self._later:
                    due, _, task = self._later[0]
                    wait_seconds = due - self._monotonic()
                    if wait_seconds <= 0:
                        heapq.heappop(self._later)
                        self._running += 1
                        return due, task
                    self._changed.wait(wait_seconds)
                elif self._running:
                    self._changed.wait()
                else:
                    break
        return None

    def _work(self, ready: queue.SimpleQueue[Task | None]) -> None:
        while (task := ready.get()) is not None:
            try:
                task()
            except Exception as error:  # noqa: BLE001 - run raises it
                self._failure = error
            with self._changed:
                self._running -= 1
                self._changed.notify()
