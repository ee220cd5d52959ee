"""What nodes use of ``threading`` and ``concurrent.futures``, as tasks of the scheduler."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from random import Random
from types import FrameType
from typing import Any

from lab.simulation.scheduler import Scheduler, Task, Timer

_MOMENT_SECONDS = 1e-6


class Primitive:
    # Of the world that is installed. Libraries keep some locks beyond the end of a run, and use them alone.
    scheduler = Scheduler(Random(0))  # noqa: S311 - a simulation

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()

    def _wait_until(self, holds: Callable[[], object], timeout: float | None) -> bool:
        """Wait until a condition holds when this task is woken; return whether it does."""
        scheduler = self.scheduler
        deadline = None if timeout is None else scheduler.now_seconds() + timeout
        while not holds():
            left = None if deadline is None else deadline - scheduler.now_seconds()
            if left is not None and left <= 0:
                return False
            self._wait(left)
        return True

    def _wait(self, seconds: float | None) -> bool:
        task = self.scheduler.current
        if task is None:
            raise RuntimeError("the world itself cannot wait for a node")
        self._waiting.append(task)
        try:
            return bool(self.scheduler.wait(seconds))
        finally:
            if task in self._waiting:
                self._waiting.remove(task)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._waiting))):
            self.scheduler.wake(self._waiting.popleft())


class Lock(Primitive):
    """A lock of the nodes lets others run first now and then. One of a library does not: when it is made, and whether
    at all, can depend on what the library has done before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_taken = False
        self.gives_way = _is_of_a_node(sys._getframe(1))

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking and self.gives_way:
            self.scheduler.give_way()
        if self._is_taken:
            seconds = None if timeout < 0 else timeout
            if not blocking or not self._wait_until(lambda: not self._is_taken, seconds):
                return False
        self._is_taken = True
        return True

    def release(self) -> None:
        if not self._is_taken:
            raise RuntimeError("release unlocked lock")
        self._is_taken = False
        if self._waiting:
            self._wake(1)

    def locked(self) -> bool:
        return self._is_taken

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    def __init__(self) -> None:
        super().__init__()
        self._owner: Task | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not (self._depth and self._owner is self.scheduler.current):
            if not super().acquire(blocking, timeout):
                return False
            self._owner = self.scheduler.current
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            super().release()


def _is_of_a_node(frame: FrameType | None) -> bool:
    """Whether a node's code makes something, directly or by another class of this module."""
    while frame is not None and frame.f_globals["__name__"] == __name__:
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"].startswith(("broker.", "nodes."))


class Condition(Primitive):
    """One of the nodes lets others run now and then after its block, too: what it guarded can have changed then."""

    def __init__(self, lock: Any = None) -> None:
        super().__init__()
        self._lock = RLock() if lock is None else lock
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *details: object) -> None:
        self._lock.__exit__(*details)
        if self._lock.gives_way:
            self.scheduler.give_way()

    def wait(self, timeout: float | None = None) -> bool:
        self._lock.release()
        try:
            return self._wait(timeout)
        finally:
            self._lock.acquire()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        deadline = None if timeout is None else self.scheduler.now_seconds() + timeout
        while not (found := predicate()):
            left = None if deadline is None else deadline - self.scheduler.now_seconds()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return found

    def notify(self, n: int = 1) -> None:
        self._wake(n)

    def notify_all(self) -> None:
        self._wake(len(self._waiting))


class Event(Primitive):
    def __init__(self) -> None:
        super().__init__()
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._wake(len(self._waiting))

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None and timeout <= 0 and not self._is_set:
            self.scheduler.sleep(_MOMENT_SECONDS)  # as a caller that asks again and again relies on
        return self._wait_until(lambda: self._is_set, timeout)


class Semaphore(Primitive):
    def __init__(self, value: int = 1) -> None:
        super().__init__()
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        if not self._wait_until(lambda: self._value > 0, timeout if blocking else 0):
            return False
        self._value -= 1
        return True

    def release(self, n: int = 1) -> None:
        self._value += n
        self._wake(n)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Thread(Primitive):
    """A task of the process whose task starts it."""

    def __init__(
        self,
        group: None = None,  # noqa: ARG002 - as in threading
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        super().__init__()
        self.name, self.daemon = name, daemon
        self._call = partial(target, *args, **(kwargs or {})) if target is not None else lambda: None
        self._has_ended = False

    def start(self) -> None:
        self.scheduler.spawn(self._run)

    def _run(self) -> None:
        try:
            self._call()
        finally:
            self._has_ended = True
            self._wake(len(self._waiting))

    def join(self, timeout: float | None = None) -> None:
        self._wait_until(lambda: self._has_ended, timeout)


class ThreadTimer(Thread):
    """``threading.Timer``."""

    def __init__(self, interval: float, function: Callable[..., object], args: Any = (), kwargs: Any = None) -> None:
        super().__init__(target=function, args=tuple(args), kwargs=kwargs)
        self._interval = interval
        self._timer: Timer | None = None

    def start(self) -> None:
        process = self.scheduler.process
        self._timer = self.scheduler.after(self._interval, lambda: self.scheduler.spawn(self._run, process))

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Executor(Primitive):
    """``concurrent.futures.ThreadPoolExecutor``."""

    def __init__(self, max_workers: int, thread_name_prefix: str = "") -> None:  # noqa: ARG002 - as in futures
        super().__init__()
        self._free = max_workers
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._queue.append((future, lambda: call(*args, **kwargs)))
        if self._free:
            self._free -= 1
            self.scheduler.spawn(self._work)
        return future

    def _work(self) -> None:
        while self._queue:
            future, call = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                found = call()
            except Exception as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)
            else:
                future.set_result(found)
        self._free += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        if cancel_futures:
            while self._queue:
                self._queue.popleft()[0].cancel()
