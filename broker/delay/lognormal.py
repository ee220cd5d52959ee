"""The logarithm of the delay is normal: what many small factors make of a delay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import ClassVar

from broker.delay.model import DELAY_MS_MAX, Numbers

_NORMAL = NormalDist()
_SQRT_HALF = math.sqrt(0.5)


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

    @cached_property
    def mean_ms(self) -> float:
        """``median exp(sigma² / 2)``."""
        return self.median_ms * math.exp(self.sigma**2 / 2)

    def quantile_ms(self, share: float) -> float:
        """``median exp(sigma z)``, z being the normal quantile."""
        if share <= 0:
            return 0.0
        return self.median_ms * math.exp(self.sigma * _NORMAL.inv_cdf(share))

    def beyond_ms(self, ms: float) -> float:
        """What a call option costs by Black and Scholes, less what lies beyond the longest delay."""
        z = self._z(ms)
        return self._bounded_mean_ms - self.mean_ms * _phi(z - self.sigma) - ms * _phi(-z)

    @cached_property
    def _bounded_mean_ms(self) -> float:
        """The mean of what is drawn, none of which is longer than the longest delay."""
        z = self._z(DELAY_MS_MAX)
        return self.mean_ms * _phi(z - self.sigma) + DELAY_MS_MAX * _phi(-z)

    def cdf(self, ms: float) -> float:
        """The normal distribution of the logarithm."""
        return _phi(self._z(ms))

    def _z(self, ms: float) -> float:
        return math.log(ms / self.median_ms) / self.sigma if ms > 0 else -math.inf


def _phi(z: float) -> float:
    """The normal distribution function; four times as fast as the one of ``NormalDist``."""
    return math.erfc(-z * _SQRT_HALF) / 2
