"""The log server's clock as a node sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable

_SAMPLES = 5


class LogClock:
    """The log server's time, carried forward by this machine's monotonic clock.

    Everything in the lab is dated by the log server, so that a node with a wrong or stepping wall clock neither
    applies early nor reports nonsense. An answer that took from ``a`` to ``b`` shows the server's time of some moment
    in between; taking it for that of ``b`` makes the estimate late by at most the round trip, and never early.
    Thread-safe.
    """

    def __init__(
        self, server_us: Callable[[], int], monotonic_ns: Callable[[], int], wall_ns: Callable[[], int]
    ) -> None:
        """``server_us`` asks the server; until ``measure`` succeeded once, this machine's wall clock is believed."""
        self._server_us = server_us
        self._monotonic_ns = monotonic_ns
        self._offset_us = wall_ns() // 1000 - monotonic_ns() // 1000
        self._skew_us = 0
        self._lock = threading.Lock()

    def measure(self) -> None:
        """Ask the server a few times and keep the answer that came back soonest after it was given.

        Raises ``broker.errors.LogError`` when the server does not answer; the former estimate stays.
        """
        offset_us = max(self._server_us() - self._monotonic_ns() // 1000 for _ in range(_SAMPLES))
        with self._lock:
            self._offset_us = offset_us

    def now_us(self) -> int:
        """The log server's time: microseconds since 1970, never ahead of it but for drift since ``measure``."""
        return self.measured_us() + self._skew_us

    def measured_us(self) -> int:
        """The same, whatever the skew: to say to others when something was."""
        return self._monotonic_ns() // 1000 + self._offset_us

    def set_skew(self, skew_us: int) -> None:
        """Be wrong by so much from now on."""
        self._skew_us = skew_us
