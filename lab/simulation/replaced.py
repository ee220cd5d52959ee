"""Replaces what nodes use of ``threading``, ``time``, ``random``, ``uuid`` and ``secrets`` for the time of a run.

The replacements stay on the virtual clock, and draw from the seed. Libraries use them as well.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any, NoReturn
from unittest.mock import patch

from lab.simulation.scheduler import START_NS, Scheduler
from lab.simulation.threads import Condition, Event, Executor, Lock, Primitive, RLock, Semaphore, Thread, ThreadTimer


class RealWorld(AssertionError):
    """Raised when simulated code would use a socket."""


def _refused(*_: object, **__: object) -> NoReturn:
    raise RealWorld("simulated code uses a socket")


@contextmanager
def installed(scheduler: Scheduler, draws: Random) -> Iterator[None]:
    """Replace threads, locks, clocks and randomness for this process. ``draws``: what random numbers come from."""

    def monotonic_ns() -> int:
        return scheduler.now_ns

    def wall_ns() -> int:
        return START_NS + scheduler.now_ns + scheduler.wall_offsets_ns.get(scheduler.process.name, 0)

    def seconds_of(clock: Callable[[], int]) -> Callable[[], float]:
        return lambda: clock() / 1e9

    clocks: dict[str, Any] = {"time": seconds_of(wall_ns), "time_ns": wall_ns, "sleep": scheduler.sleep}
    for name in ("monotonic", "perf_counter"):
        clocks |= {name: seconds_of(monotonic_ns), f"{name}_ns": monotonic_ns}
    pid = os.getpid()
    threads = {kind.__name__: kind for kind in (Lock, RLock, Condition, Event, Semaphore, Thread)}
    replaced: list[tuple[Any, dict[str, Any]]] = [
        (time, clocks),
        (threading, {**threads, "Timer": ThreadTimer}),
        (concurrent.futures, {"ThreadPoolExecutor": Executor}),
        (uuid, {"uuid4": lambda: uuid.UUID(int=draws.getrandbits(128), version=4)}),
        (secrets, {"token_hex": lambda size: draws.randbytes(size).hex()}),
        (os, {"getpid": lambda: pid}),  # otherwise a system call for each command of redis-py
        (socket, dict.fromkeys(("socket", "create_connection", "getaddrinfo"), _refused)),
    ]
    state = random.getstate()
    random.seed(draws.getrandbits(64))
    with ExitStack() as stack:
        stack.callback(random.setstate, state)
        for module, functions in replaced:
            for name, function in functions.items():
                stack.enter_context(patch.object(module, name, function))
        stack.enter_context(patch.object(Primitive, "scheduler", scheduler))
        yield
