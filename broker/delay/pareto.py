"""A heavy tail: few entries are very late, and there is always one that is later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from broker.delay.model import DELAY_MS_MAX, Numbers


@dataclass(frozen=True)
class Pareto(Numbers):
    """At least ``scale_ms``; the smaller ``alpha``, the heavier the tail."""

    kind: ClassVar[str] = "pareto"
    scale_ms: float
    alpha: float

    def __post_init__(self) -> None:
        """Raises ``ValueError``."""
        if self.scale_ms <= 0 or not 1 < self.alpha <= 1000:
            raise ValueError("scale_ms is more than 0, and alpha more than 1 (else there is no mean) and at most 1000")

    @property
    def mean_ms(self) -> float:
        """``alpha scale / (alpha - 1)``."""
        return self.alpha * self.scale_ms / (self.alpha - 1)

    def quantile_ms(self, share: float) -> float:
        """``scale / (1 - share)^(1 / alpha)``."""
        return float(self.scale_ms * (1 - share) ** (-1 / self.alpha))

    def beyond_ms(self, ms: float) -> float:
        """The integral of ``(scale / u)^alpha``; below ``scale`` nothing has passed yet."""
        begin = max(ms, self.scale_ms)
        power = self.alpha - 1
        tail = -math.expm1(-power * math.log(DELAY_MS_MAX / begin)) / power  # exact also where alpha is nearly 1
        return float(begin - ms + begin * (self.scale_ms / begin) ** self.alpha * tail)

    def cdf(self, ms: float) -> float:
        """``1 - (scale / ms)^alpha``."""
        return 1 - (self.scale_ms / ms) ** self.alpha if ms > self.scale_ms else 0.0
