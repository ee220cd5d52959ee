"""A clock that only a test moves."""

from __future__ import annotations


class FakeClock:
    """Microseconds, as the log's clock gives them."""

    def __init__(self, now_us: int = 1_000_000_000) -> None:
        self.us = now_us

    def now_us(self) -> int:
        """The time it is."""
        return self.us

    def advance_ms(self, milliseconds: float) -> None:
        """Let time pass."""
        self.us += round(milliseconds * 1000)
