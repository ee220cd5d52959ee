"""Waiting for a position, without polling."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from broker.position import START, Position
from nodes.http import caller
from nodes.runtime.places import too_many_waiters


class State(NamedTuple):
    """Where a node is: its position, and the write that brought it there. Times are microseconds since 1970."""

    position: Position
    write_id: str | None
    at_us: int | None


EMPTY_STATE = State(START, None, None)


class PositionGate:
    """A node's current state, and those who wait for it to reach a position.

    Nobody polls, and nobody is woken for a position that is not theirs. Each waiter is parked on a lock of its own;
    ``advance`` releases the first of those concerned, and each releases the next as soon as it runs: hundreds woken at
    once would fight over the interpreter's lock for longer than their answers take. At most ``max_waiters`` wait.
    """

    def __init__(
        self,
        state: State,
        max_waiters: int,
        woken: Callable[[float], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``woken`` receives, for each waiter, the seconds from reaching its position until it resumed."""
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._state = state
        self._max_waiters = max_waiters
        self._woken = woken
        self._waiting: dict[Position, list[_Parked]] = {}
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

    def wait_for(self, target: Position, timeout_seconds: float) -> State:
        """Wait until ``target`` is reached, the time is up, or the node stops; return the state then.

        Raises ``Problem`` 503 when too many wait already, and ``ClientDisconnected`` when the caller has hung up.
        """
        if self._state.position >= target or timeout_seconds <= 0:
            return self._state
        parked = _Parked()
        with self._lock:
            if self._closed or self._state.position >= target:
                return self._state
            self._enter(target, parked)
        woken = False
        try:
            woken = caller.wait(parked.wait, timeout_seconds, self._monotonic)
        finally:
            if not woken and not self._gave_up(target, parked):
                woken = True  # at this very moment
            if woken:
                parked.wake_next()
        if not woken:
            return self._state
        if parked.reached_at is not None:
            self._woken(self._monotonic() - parked.reached_at)
        return self._state

    def close(self) -> None:
        """Wake everybody for good: the node stops."""
        with self._lock:
            self._closed = True
            self._wake(list(self._waiting), None)

    def _move(self, state: State) -> None:
        self._state = state
        if self._soonest is not None and self._soonest <= state.position:
            self._wake([target for target in self._waiting if target <= state.position], self._monotonic())

    def _wake(self, targets: list[Position], reached_at: float | None) -> None:
        """Wake the waiters for these targets, reached at ``reached_at``; ``None`` if they are not reached."""
        woken = [parked for target in targets for parked in self._waiting.pop(target)]
        self._waiters -= len(woken)
        self._soonest = min(self._waiting, default=None)
        for parked in woken:
            parked.reached_at = reached_at  # kept per waiter: the gate may advance again before this one resumes
        for parked, following in pairwise(woken):
            parked.next = following
        if woken:
            woken[0].wake()

    def _enter(self, target: Position, parked: _Parked) -> None:
        if self._waiters >= self._max_waiters:
            raise too_many_waiters(self._waiters)
        self._waiting.setdefault(target, []).append(parked)
        self._soonest = target if self._soonest is None else min(self._soonest, target)
        self._waiters += 1

    def _gave_up(self, target: Position, parked: _Parked) -> bool:
        """Stop waiting; ``False`` where it was woken meanwhile, so that the next one depends on it."""
        with self._lock:
            if self._leave(target, parked):
                return True
        parked.wait(None)
        return False

    def _leave(self, target: Position, parked: _Parked) -> bool:
        waiting = self._waiting.get(target, [])
        if parked not in waiting:
            return False
        waiting.remove(parked)
        self._waiters -= 1
        if not waiting:
            del self._waiting[target]
            self._soonest = min(self._waiting, default=None)
        return True


class _Parked:
    """One who waits, and who is to be woken after it."""

    def __init__(self) -> None:
        self.next: _Parked | None = None
        self.reached_at: float | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout_seconds: float | None) -> bool:
        """Wait to be woken; whether that came in time."""
        return self._lock.acquire(timeout=-1 if timeout_seconds is None else timeout_seconds)

    def wake(self) -> None:
        """Let it go on."""
        self._lock.release()

    def wake_next(self) -> None:
        """Let the one after it go on."""
        if self.next is not None:
            self.next.wake()
