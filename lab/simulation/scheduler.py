"""The virtual clock, and the tasks that run by it: one at a time, each until it waits.

A task is a greenlet, because the nodes' code waits in the middle of functions, as code of threads does. When nothing
can run, the clock moves to the next timer. Which of several runnable tasks runs next is drawn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil
from random import Random
from typing import Any, Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

START_NS = 1_767_225_600 * 10**9  # 2026-01-01, when every run begins
_TASKS_MAX = 10_000
_GIVES_WAY = 0.03
_PREEMPTED, _PREEMPTED_SECONDS = 0.2, 0.02  # how often a task that gives way does so for a while, at most this long
T = TypeVar("T")


class Killed(GreenletExit):
    """Raised in the tasks of a process that ends: nothing that they do afterwards has an effect."""


class Stalled(Exception):
    """Raised when code that is not a task would wait: only tasks can."""


class Process:
    """What is killed, frozen and started as a whole: a node. The tasks of no node belong to the world itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_frozen = False
        self.tasks: dict[int, Task] = {}  # by number


class Timer:
    """A call at a time; it can be cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object] | None) -> None:
        self.call = call

    def cancel(self) -> None:
        self.call = None


class Task:
    """A thread of a process. ``value``: what the one who woke it passed, ``None`` after a time-out."""

    __slots__ = ("_call", "_greenlet", "_timer", "is_ready", "number", "process", "value")

    def __init__(self, number: int, process: Process, call: Callable[[], object], hub: greenlet) -> None:
        self.number, self.process = number, process
        self.value: Any = None
        self.is_ready = False
        self._call = call
        self._timer: Timer | None = None
        self._greenlet = greenlet(self._run, hub)

    def _run(self) -> None:
        try:
            if self.process.is_alive:
                self._call()
        except Killed:
            pass
        finally:
            self.process.tasks.pop(self.number, None)


class Scheduler:
    """``random`` draws which task runs next. ``gives_way``: how often a task lets others run where it could go on."""

    def __init__(self, random: Random, gives_way: float = _GIVES_WAY) -> None:
        self.now_ns = 0  # since the start of the run
        self.wall_offsets_ns: dict[str, int] = {}  # of the clocks of processes' machines, by name
        self.random = random
        self._gives_way = gives_way
        self.world = Process("world")
        self.switches = 0
        self._timers: list[tuple[int, int, Timer]] = []
        self._ready: list[Task] = []
        self._hub = getcurrent()
        self._numbers = 0
        self.current: Task | None = None

    def now_seconds(self) -> float:
        return self.now_ns / 1e9

    # -- tasks --------------------------------------------------------------------------------------------------------

    def spawn(self, call: Callable[[], object], process: Process | None = None) -> Task:
        """Start a task, by default of the process of the current one."""
        owner = process or self.process
        if len(owner.tasks) > _TASKS_MAX:
            raise AssertionError(f"{owner.name} has more than {_TASKS_MAX} tasks")
        self._numbers += 1
        task = Task(self._numbers, owner, call, self._hub)
        owner.tasks[task.number] = task
        self._make_ready(task)
        return task

    @property
    def process(self) -> Process:
        """The process of the current task."""
        return self.current.process if self.current is not None else self.world

    def wait(self, seconds: float | None = None) -> Any:
        """Let others run until the current task is woken; return the value, ``None`` once the time is up."""
        task = self.current
        if task is None:
            raise Stalled("only a task can wait")
        if not task.process.is_alive:
            raise Killed
        task.value = None
        if seconds is not None:
            task._timer = self.after(seconds, lambda: self._make_ready(task))
        self._hub.switch()
        if not task.process.is_alive:
            raise Killed
        return task.value

    def wake(self, task: Task, value: Any = True) -> None:
        """Let a waiting task continue with this value."""
        if not task.is_ready:
            task.value = value
            if task._timer is not None:
                task._timer.cancel()
            self._make_ready(task)

    def sleep(self, seconds: float) -> None:
        self.wait(max(0.0, seconds))

    def give_way(self) -> None:
        """Now and then, let the other runnable tasks come first, perhaps, or whatever the next moments bring."""
        task = self.current
        if task is None or self.random.random() >= self._gives_way or not task.process.is_alive:
            return  # what a task does as it is ended, it does at once
        if self.random.random() < _PREEMPTED:
            self.sleep(self.random.random() * _PREEMPTED_SECONDS)
            return
        self._make_ready(task)
        self._hub.switch()
        if not task.process.is_alive:
            raise Killed

    def _make_ready(self, task: Task) -> None:
        task._timer = None
        task.is_ready = True
        self._ready.append(task)

    # -- processes ----------------------------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """End every task of a process, between two of its steps. The current task goes on until it waits."""
        process.is_alive = False
        process.is_frozen = False
        for task in list(process.tasks.values()):
            if task is not self.current:
                self._end(task)

    def _end(self, task: Task) -> None:
        if task._timer is not None:
            task._timer.cancel()
        before, self.current = self.current, task
        try:
            task._greenlet.parent = getcurrent()  # which goes on when it has ended
            task._greenlet.throw(Killed)
        finally:
            self.current = before
        task.process.tasks.pop(task.number, None)

    def freeze(self, process: Process) -> None:
        """Let no task of a process run until ``thaw``, as SIGSTOP does."""
        process.is_frozen = True

    def thaw(self, process: Process) -> None:
        process.is_frozen = False

    # -- time ---------------------------------------------------------------------------------------------------------

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call a function, which must not wait, after this time."""
        timer = Timer(call)
        self._numbers += 1
        heappush(self._timers, (self.now_ns + max(1, ceil(seconds * 1e9)), self._numbers, timer))
        return timer

    def run(self, until_seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Run everything up to a time, or until ``is_over`` after some step."""
        until_ns = round(until_seconds * 1e9)
        while not is_over():
            task = self._next()
            if task is not None:
                self.switches += 1
                self.current = task
                task.is_ready = False
                try:
                    task._greenlet.switch()
                finally:
                    self.current = None
            elif self._timers and self._timers[0][0] <= until_ns:
                at_ns, _, timer = heappop(self._timers)
                if timer.call is not None:
                    self.now_ns = max(self.now_ns, at_ns)
                    timer.call()
            else:
                self.now_ns = max(self.now_ns, until_ns)
                return

    def _next(self) -> Task | None:
        """Draw one of the tasks that can run."""
        ready = self._ready
        if not ready:
            return None
        if len(ready) > 1:
            # Sorted, because tasks can be woken in an order that depends on addresses in memory.
            ready.sort(key=_number)
            usable = [task for task in ready if not task.process.is_frozen]
            if not usable:
                return None
            task = usable[int(self.random.random() * len(usable))]
            ready.remove(task)
            return task
        return None if ready[0].process.is_frozen else ready.pop()


def _number(task: Task) -> int:
    return task.number


class Mailbox(Generic[T]):
    """What arrives for a task, which waits for it here: what comes too late does not wake it anywhere else."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: deque[T] = deque()
        self._waiting: Task | None = None

    def put(self, *items: T) -> None:
        self._items.extend(items)
        if self._waiting is not None:
            self._scheduler.wake(self._waiting)

    def arrives(self, timeout_seconds: float | None) -> bool:
        """Wait until there is something; return whether there is."""
        scheduler = self._scheduler
        deadline = None if timeout_seconds is None else scheduler.now_seconds() + timeout_seconds
        while not self._items:
            left = None if deadline is None else deadline - scheduler.now_seconds()
            if left is not None and left <= 0:
                return False
            self._waiting = scheduler.current
            try:
                scheduler.wait(left)
            finally:
                self._waiting = None
        return True

    def take(self, timeout_seconds: float | None) -> T | None:
        """Wait for the next item; return ``None`` if the time is up."""
        return self._items.popleft() if self.arrives(timeout_seconds) else None
