"""Delays that were measured somewhere, drawn again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Self

from broker.delay.model import DELAY_MS_MAX, tidy

DELAYS_MAX = 10_000
_NUMBERS = frozenset({int, float})  # and so no bool, which is a kind of int


@dataclass(frozen=True)
class Trace:
    """``delays_ms``: at least two measured delays, in rising order; between two of them the distribution is a line."""

    kind: ClassVar[str] = "trace"
    delays_ms: tuple[float, ...]

    @property
    def mean_ms(self) -> float:
        """The mean of the lines between the delays."""
        return sum((low + high) / 2 for low, high in pairwise(self.delays_ms)) / (len(self.delays_ms) - 1)

    def quantile_ms(self, share: float) -> float:
        """By linear interpolation between the measured delays."""
        at = min(max(share, 0.0), 1.0) * (len(self.delays_ms) - 1)
        below = min(int(at), len(self.delays_ms) - 2)
        low, high = self.delays_ms[below : below + 2]
        return low + (at - below) * (high - low)

    def cdf(self, ms: float) -> float:
        """The inverse of the quantile."""
        above = bisect_right(self.delays_ms, ms)
        if above == 0:
            return 0.0
        if above == len(self.delays_ms):
            return 1.0
        low, high = self.delays_ms[above - 1 : above + 1]
        return (above - 1 + (ms - low) / (high - low)) / (len(self.delays_ms) - 1)

    def beyond_ms(self, ms: float) -> float:
        """The area above the line that ``ms`` falls on, and above those that follow."""
        count = len(self.delays_ms)
        above = bisect_right(self.delays_ms, ms)
        if above == count:
            return 0.0
        high, longest = self.delays_ms[above], self.delays_ms[-1]
        lines = count - 1 - above  # that follow, whose middles add up to this:
        middles = self._sums[count] - self._sums[above] - (high + longest) / 2
        on_this = (high - ms) * ((1 - self.cdf(ms)) + lines / (count - 1)) / 2
        return on_this + (middles - lines * high) / (count - 1)

    @cached_property
    def _sums(self) -> list[float]:
        """What the delays before each add up to."""
        return list(accumulate(self.delays_ms, initial=0.0))

    def draw_ms(self, uniform: float) -> float:
        """The quantile."""
        return self.quantile_ms(uniform)

    def as_json(self) -> dict[str, Any]:
        """``{"kind": "trace", "delays_ms": [1, 2, 3.5, …]}``."""
        return {"kind": self.kind, "delays_ms": [tidy(ms) for ms in self.delays_ms]}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Read the delays, in any order. Raises ``ValueError``."""
        delays = parameters.get("delays_ms")
        if set(parameters) != {"delays_ms"} or not isinstance(delays, list) or not 2 <= len(delays) <= DELAYS_MAX:
            raise ValueError(f"trace has delays_ms, a list of 2 to {DELAYS_MAX} numbers")
        if not all(type(ms) in _NUMBERS and 0 <= ms <= DELAY_MS_MAX for ms in delays):
            raise ValueError(f"delays_ms holds numbers from 0 to {DELAY_MS_MAX}")
        return cls(tuple(sorted(delays)))
