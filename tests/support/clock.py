"""A clock that only a test advances."""


class FakeClock:
    """Microseconds, like the log's clock."""

    def __init__(self, now_us: int = 1_000_000_000) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def advance_ms(self, milliseconds: float) -> None:
        self.us += round(milliseconds * 1000)
