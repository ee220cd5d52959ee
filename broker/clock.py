"""The log server's clock as a node sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable

_SAMPLES = 5


class LogClock:
    """The log server's time, carried forward by this machine's monotonic clock.

    Everything in the lab is dated by the log server, so that a node with a wrong or stepping wall clock neither
    applies early nor reports nonsense. An answer that took from ``a`` to ``b`` shows the server's time of some moment
    in between; taking it for that of ``b`` makes the estimate late by at most the round trip, and never early. An
    estimate that agrees with later answers stays, so that slow ones do not set the clock back. Thread-safe.
    """

    def __init__(
        self, server_us: Callable[[], int], monotonic_ns: Callable[[], int], wall_ns: Callable[[], int]
    ) -> None:
        """``server_us`` asks the server; until ``measure`` succeeded once, this machine's wall clock is believed."""
        self._server_us = server_us
        self._monotonic_ns = monotonic_ns
        self._offset_us = wall_ns() // 1000 - monotonic_ns() // 1000
        self._measured = False
        self._skew_us = 0
        self._lock = threading.Lock()

    def measure(self) -> None:
        """Ask the server a few times; an estimate that its answers do not allow gives way to the least that they do.

        Raises ``broker.errors.LogError`` when the server does not answer; the former estimate stays.
        """
        answers = [self._ask() for _ in range(_SAMPLES)]
        lowest_us, highest_us = max(low for low, _ in answers), min(high for _, high in answers)
        with self._lock:
            if not (self._measured and lowest_us <= self._offset_us <= highest_us):
                self._offset_us = lowest_us
            self._measured = True

    def _ask(self) -> tuple[int, int]:
        """By how much the server is ahead of the monotonic clock, at the least and at the most."""
        asked_us = self._monotonic_ns() // 1000
        server_us = self._server_us()
        return server_us - self._monotonic_ns() // 1000, server_us - asked_us

    def known_us(self) -> int | None:
        """What ``measured_us`` gives, once the server has answered."""
        return self.measured_us() if self._measured else None

    def now_us(self) -> int:
        """The log server's time: microseconds since 1970, never ahead of it by more than drift and a round trip."""
        return self.measured_us() + self._skew_us

    def measured_us(self) -> int:
        """The same, whatever the skew: to say to others when something was."""
        return self._monotonic_ns() // 1000 + self._offset_us

    def set_skew(self, skew_us: int) -> None:
        """Be wrong by so much from now on."""
        self._skew_us = skew_us
