"""Most entries are early, and some quite late: what is left to wait never depends on how long it has been already."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from broker.delay.model import DELAY_MS_MAX, Numbers


@dataclass(frozen=True)
class Exponential(Numbers):
    """With the mean ``mean_ms``."""

    kind: ClassVar[str] = "exponential"
    mean_ms: float

    def __post_init__(self) -> None:
        """Raises ``ValueError``."""
        if self.mean_ms <= 0:
            raise ValueError("mean_ms is more than 0")

    def quantile_ms(self, share: float) -> float:
        """``-mean ln(1 - share)``."""
        return -self.mean_ms * math.log1p(-share)

    def beyond_ms(self, ms: float) -> float:
        """``mean (exp(-ms / mean) - exp(-longest / mean))``."""
        return self.mean_ms * (math.exp(-ms / self.mean_ms) - math.exp(-DELAY_MS_MAX / self.mean_ms))

    def cdf(self, ms: float) -> float:
        """``1 - exp(-ms / mean)``."""
        return -math.expm1(-max(0.0, ms) / self.mean_ms)
