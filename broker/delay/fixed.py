"""Every entry is equally late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from broker.delay.model import Numbers, tidy


@dataclass(frozen=True)
class Fixed(Numbers):
    """``ms`` for every entry."""

    kind: ClassVar[str] = "fixed"
    ms: float

    @property
    def mean_ms(self) -> float:
        """The delay itself."""
        return tidy(self.ms)

    def quantile_ms(self, share: float) -> float:  # noqa: ARG002
        """The delay itself."""
        return self.ms

    def beyond_ms(self, ms: float) -> float:
        """What is left of the delay."""
        return max(0.0, self.ms - ms)

    def cdf(self, ms: float) -> float:
        """A step."""
        return float(ms >= self.ms)
