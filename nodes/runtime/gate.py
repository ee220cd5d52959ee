"""Requests waiting for a position, without polling and in a bounded number, so that others are answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from broker.entry import Entry
from broker.position import START, Position
from nodes.runtime import caller

_NEVER = Position(2**63, 0)


class State(NamedTuple):
    """A node's position, and the write at that position. Times are microseconds since 1970.

    ``beyond``: the newest version that is applied beyond the position, as in order ``arrival``; 0 if none is.
    """

    position: Position
    write_id: str | None
    at_us: int | None
    beyond: int = 0

    @property
    def newest(self) -> Position:
        """The newest position that is applied."""
        return max(self.position, Position(self.position.epoch, self.beyond))

    def after(self, entry: Entry) -> State:
        """The state once everything up to an entry is applied."""
        beyond = self.beyond if entry.position < self.newest else 0
        return State(entry.position, entry.write_id, entry.at_us, beyond)


EMPTY_STATE = State(START, None, None)


class TooManyWaiters(Exception):
    """Raised when the limit of waiting requests is reached; nothing was done."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} requests are waiting on this node, its limit; try again shortly")


class Places:
    """Capacity for at most ``count`` concurrent requests. Thread-safe."""

    def __init__(self, count: int, full: type[TooManyWaiters] = TooManyWaiters) -> None:
        self._count, self._full = count, full
        self._free = threading.Semaphore(count)

    @contextmanager
    def one(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise self._full(self._count)
        try:
            yield
        finally:
            self._free.release()


class PositionGate:
    """A node's current state, and the requests that wait for it to reach a position.

    Each waiter is parked on a separate lock and woken only for its position. ``advance`` releases the first affected
    waiter, and each releases the next as soon as it runs: hundreds waking at once would compete for the interpreter's
    lock longer than their responses take. At most ``max_waiters`` wait.
    """

    def __init__(
        self,
        state: State,
        max_waiters: int,
        woken: Callable[[float], None] = lambda _: None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """``woken`` receives, for each waiter, the seconds from reaching its position until it resumed."""
        self._lock = threading.Lock()
        self._state, self._max_waiters = state, max_waiters
        self._woken, self._monotonic = woken, monotonic or time.monotonic
        self._waiting: dict[Position, list[_Parked]] = {}
        self._beyond: set[Position] = set()
        self._soonest: Position | None = None
        self._closed = False
        self.waiters = 0

    @property
    def state(self) -> State:
        return self._state

    def advance(self, state: State, also: Iterable[Position] = ()) -> None:
        """Advance, and wake the waiters for positions up to this one; ignore an older state.

        ``also``: single positions that are reached as well, possibly before earlier ones.
        """
        with self._lock:
            if state.position >= self._state.position:
                self._move(state)
            if beyond := {position for position in also if position > self._state.position}:
                self._beyond |= beyond
                self._wake([target for target in self._waiting if target in beyond], self._monotonic())

    def is_reached(self, target: Position) -> bool:
        return self._state.position >= target or target in self._beyond

    def replace(self, state: State) -> None:
        """Set a state even if it is older: the history itself was lost and has been read again."""
        with self._lock:
            self._move(state)

    def wait_for(self, target: Position, timeout_seconds: float) -> State:
        """Wait for ``target``, the deadline, or the node's end. Raises ``TooManyWaiters``, ``CallerLeft``."""
        if self.is_reached(target) or timeout_seconds <= 0:
            return self._state
        parked = _Parked()
        with self._lock:
            if self._closed or self.is_reached(target):
                return self._state
            self._enter(target, parked)
        woken = False
        try:
            woken = caller.wait(parked.wait, timeout_seconds, self._monotonic)
        finally:
            woken = woken or not self._gave_up(target, parked)  # a concurrent wake-up is possible
            if woken and parked.next is not None:
                parked.next.wake()
        if woken and parked.reached_at is not None:
            self._woken(self._monotonic() - parked.reached_at)
        return self._state

    def hold(self, seconds: float) -> None:
        """Hold a request back, as one of the bounded number that wait. Raises ``TooManyWaiters``, ``CallerLeft``."""
        self.wait_for(_NEVER, seconds)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._wake(list(self._waiting), None)

    def _move(self, state: State) -> None:
        self._state = state
        if self._beyond:
            self._beyond = {position for position in self._beyond if position > state.position}
        if self._soonest is not None and self._soonest <= state.position:
            self._wake([target for target in self._waiting if target <= state.position], self._monotonic())

    def _wake(self, targets: list[Position], reached_at: float | None) -> None:
        """Wake the waiters for these targets, reached at ``reached_at``; ``None`` if not reached."""
        woken = [parked for target in targets for parked in self._waiting.pop(target)]
        self.waiters -= len(woken)
        self._soonest = min(self._waiting, default=None)
        for parked in woken:
            parked.reached_at = reached_at  # kept per waiter: the gate can advance again before this one resumes
        for parked, following in pairwise(woken):
            parked.next = following
        if woken:
            woken[0].wake()

    def _enter(self, target: Position, parked: _Parked) -> None:
        if self.waiters >= self._max_waiters:
            raise TooManyWaiters(self.waiters)
        self._waiting.setdefault(target, []).append(parked)
        self._soonest = target if self._soonest is None else min(self._soonest, target)
        self.waiters += 1

    def _gave_up(self, target: Position, parked: _Parked) -> bool:
        """Stop waiting; ``False`` if it was woken meanwhile and must therefore wake the next one."""
        with self._lock:
            waiting = self._waiting.get(target, [])
            if parked in waiting:
                waiting.remove(parked)
                self.waiters -= 1
                if not waiting:
                    del self._waiting[target]
                    self._soonest = min(self._waiting, default=None)
                return True
        parked.wait(None)
        return False


class _Parked:
    def __init__(self) -> None:
        self.next: _Parked | None = None
        self.reached_at: float | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout_seconds: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout_seconds is None else timeout_seconds)

    def wake(self) -> None:
        self._lock.release()
