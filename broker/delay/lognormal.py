"""The logarithm of the delay is normal: what many small factors make of a delay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

from broker.delay.model import Numbers

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Lognormal(Numbers):
    """Half of the entries within ``median_ms``; ``sigma`` is the standard deviation of the logarithm."""

    kind: ClassVar[str] = "lognormal"
    median_ms: float
    sigma: float

    def __post_init__(self) -> None:
        """Raises ``ValueError``."""
        if self.median_ms <= 0 or not 0 < self.sigma <= 5:
            raise ValueError("median_ms is more than 0, and sigma more than 0 and at most 5")

    @property
    def mean_ms(self) -> float:
        """``median exp(sigma² / 2)``."""
        return self.median_ms * math.exp(self.sigma**2 / 2)

    def quantile_ms(self, share: float) -> float:
        """``median exp(sigma z)``, z being the normal quantile."""
        if share <= 0:
            return 0.0
        return self.median_ms * math.exp(self.sigma * _NORMAL.inv_cdf(share))

    def cdf(self, ms: float) -> float:
        """The normal distribution of the logarithm."""
        return _NORMAL.cdf(math.log(ms / self.median_ms) / self.sigma) if ms > 0 else 0.0
