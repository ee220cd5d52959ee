"""Waiting for a position, without polling."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from broker.position import START, Position
from nodes.problem import Problem


class State(NamedTuple):
    """Where a node is: its position, and the write that brought it there. Times are microseconds since 1970."""

    position: Position
    write_id: str | None
    at_us: int | None


EMPTY_STATE = State(START, None, None)


class PositionGate:
    """A node's current state, and those who wait for it to reach a position.

    All waiters share one lock; those for the same position share one condition, so that an apply wakes the ones it
    concerns and no others. At most ``max_waiters`` wait at once.
    """

    def __init__(self, state: State, max_waiters: int, monotonic: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._state = state
        self._max_waiters = max_waiters
        self._monotonic = monotonic
        self._waiting: dict[Position, _Waiting] = {}
        self._soonest: Position | None = None
        self._waiters = 0
        self._closed = False

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def waiters(self) -> int:
        """How many wait now."""
        return self._waiters

    def advance(self, state: State) -> None:
        """Move on, and wake who waited for a position up to this one; a state of the past is ignored."""
        with self._lock:
            if state.position > self._state.position:
                self._move(state)

    def replace(self, state: State) -> None:
        """Take a state as it is, also one of the past: the history itself was lost and has been read anew."""
        with self._lock:
            self._move(state)

    def _move(self, state: State) -> None:
        self._state = state
        if self._soonest is not None and self._soonest <= state.position:
            for target in [target for target in self._waiting if target <= state.position]:
                self._waiting.pop(target).condition.notify_all()
            self._soonest = min(self._waiting, default=None)

    def wait_for(self, target: Position, timeout_seconds: float) -> State:
        """Wait until ``target`` is reached, the time is up, or the node stops; return the state then.

        Raises ``Problem`` 503 when too many wait already.
        """
        if self._state.position >= target or timeout_seconds <= 0:
            return self._state
        deadline = self._monotonic() + timeout_seconds
        with self._lock:
            if self._waiters >= self._max_waiters:
                detail = f"{self._waiters} requests wait on this node already, which is its bound; try again shortly."
                problem = Problem(503, "too-many-waiters", "Too many waiters", detail)
                problem.headers["Retry-After"] = "1"
                raise problem
            waiting = self._enter(target)
            try:
                while not self._closed and self._state.position < target:
                    left = deadline - self._monotonic()
                    if left <= 0 or not waiting.condition.wait(left):
                        break
            finally:
                self._leave(target, waiting)
            return self._state

    def close(self) -> None:
        """Wake everybody for good: the node stops."""
        with self._lock:
            self._closed = True
            for waiting in self._waiting.values():
                waiting.condition.notify_all()

    def _enter(self, target: Position) -> _Waiting:
        waiting = self._waiting.get(target)
        if waiting is None:
            waiting = self._waiting[target] = _Waiting(threading.Condition(self._lock))
            self._soonest = target if self._soonest is None else min(self._soonest, target)
        waiting.count += 1
        self._waiters += 1
        return waiting

    def _leave(self, target: Position, waiting: _Waiting) -> None:
        waiting.count -= 1
        self._waiters -= 1
        if waiting.count == 0 and self._waiting.get(target) is waiting:
            del self._waiting[target]
            self._soonest = min(self._waiting, default=None)


class _Waiting:
    """Those who wait for one position."""

    def __init__(self, condition: threading.Condition) -> None:
        self.condition = condition
        self.count = 0
