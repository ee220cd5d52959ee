"""The log server's clock as a node sees it."""

import threading
from collections.abc import Callable

_SAMPLES = 5  # answers in one measurement, at most
_QUICK_US = 500  # round trip


class LogClock:
    """The log server's time, carried forward by this machine's monotonic clock.

    Everything in the lab is dated by the log server, so a node with a wrong or stepping wall clock neither applies
    early nor reports nonsense. A response that took from ``a`` to ``b`` shows the server's time at some moment in
    between; attributing it to ``b`` makes the estimate late by at most the round trip, and never early. An estimate
    consistent with later responses is kept, so slow ones do not set the clock back. Thread-safe.
    """

    def __init__(
        self, server_us: Callable[[], int], monotonic_ns: Callable[[], int], wall_ns: Callable[[], int]
    ) -> None:
        """``server_us`` asks the server; until ``measure`` has succeeded once, this machine's wall clock is used."""
        self._server_us = server_us
        self._monotonic_ns = monotonic_ns
        self._offset_us = wall_ns() // 1000 - monotonic_ns() // 1000
        self._measured = False
        self._skew_us = 0
        self._lock = threading.Lock()

    def measure(self) -> None:
        """Ask the server until a quick answer agrees with the estimate; replace it if a few answers contradict it.

        Raises ``LogError``.
        """
        lowest_us, highest_us = self._ask()
        for _ in range(_SAMPLES - 1):
            if self._agrees(lowest_us, highest_us) and highest_us - lowest_us <= _QUICK_US:
                return
            low_us, high_us = self._ask()
            lowest_us, highest_us = max(lowest_us, low_us), min(highest_us, high_us)
        with self._lock:
            if not self._agrees(lowest_us, highest_us):
                self._offset_us = lowest_us
            self._measured = True

    def _agrees(self, lowest_us: int, highest_us: int) -> bool:
        return self._measured and lowest_us <= self._offset_us <= highest_us

    def _ask(self) -> tuple[int, int]:
        """Return the lower and upper bound of the server's lead over the monotonic clock."""
        asked_us = self._monotonic_ns() // 1000
        server_us = self._server_us()
        return server_us - self._monotonic_ns() // 1000, server_us - asked_us

    def now_us(self) -> int:
        """Return the log server's time in microseconds since 1970, ahead of it by no more than drift and the skew."""
        return self.measured_us() + self._skew_us

    def measured_us(self) -> int:
        """Return the log server's time without the skew, for times reported to other nodes."""
        return self._monotonic_ns() // 1000 + self._offset_us

    def at_us(self, monotonic_seconds: float) -> int:
        """Return the log server's time, without the skew, at a moment of this machine's monotonic clock."""
        return round(monotonic_seconds * 1e6) + self._offset_us

    def known_us(self) -> int | None:
        return self.measured_us() if self._measured else None

    def set_skew(self, skew_us: int) -> None:
        self._skew_us = skew_us
