"""Any delay between two bounds is as likely as any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from broker.delay.model import Numbers


@dataclass(frozen=True)
class Uniform(Numbers):
    """From ``low_ms`` to ``high_ms``."""

    kind: ClassVar[str] = "uniform"
    low_ms: float
    high_ms: float

    def __post_init__(self) -> None:
        """Raises ``ValueError``."""
        if self.low_ms >= self.high_ms:
            raise ValueError("low_ms is less than high_ms")

    @property
    def mean_ms(self) -> float:
        """The middle."""
        return (self.low_ms + self.high_ms) / 2

    def quantile_ms(self, share: float) -> float:
        """A straight line."""
        return self.low_ms + share * (self.high_ms - self.low_ms)

    def beyond_ms(self, ms: float) -> float:
        """The area above the ramp."""
        if ms <= self.low_ms:
            return self.mean_ms - ms
        return max(0.0, self.high_ms - ms) ** 2 / (2 * (self.high_ms - self.low_ms))

    def cdf(self, ms: float) -> float:
        """A ramp."""
        return min(1.0, max(0.0, (ms - self.low_ms) / (self.high_ms - self.low_ms)))
