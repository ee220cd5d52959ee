"""A delay model of measured delays."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Self

from broker.delay.models import DELAY_MS_MAX, DelayModel, tidy
from broker.stats import quantile_of_sorted

if TYPE_CHECKING:
    import numpy as np

    from broker.delay.models import Floats

DELAYS_MAX = 10_000
_NUMBERS = frozenset({int, float})  # and so no bool, which is a kind of int


@dataclass(frozen=True)
class Trace(DelayModel):
    """``delays_ms``: at least two measured delays in ascending order; the distribution is linear between them."""

    kind = "trace"
    delays_ms: tuple[float, ...]

    @property
    def mean_ms(self) -> float:
        return sum((low + high) / 2 for low, high in pairwise(self.delays_ms)) / (len(self.delays_ms) - 1)

    def quantile_ms(self, share: float) -> float:
        return quantile_of_sorted(self.delays_ms, min(max(share, 0.0), 1.0))

    def cdf(self, ms: float) -> float:
        above = bisect_right(self.delays_ms, ms)
        if above == 0:
            return 0.0
        if above == len(self.delays_ms):
            return 1.0
        low, high = self.delays_ms[above - 1 : above + 1]
        return (above - 1 + (ms - low) / (high - low)) / (len(self.delays_ms) - 1)

    def beyond_ms(self, ms: float) -> float:
        """Return the area above the line that ``ms`` falls on, and above the lines that follow."""
        count = len(self.delays_ms)
        above = bisect_right(self.delays_ms, ms)
        if above == count:
            return 0.0
        high, longest = self.delays_ms[above], self.delays_ms[-1]
        lines = count - 1 - above  # that follow, whose middles add up to this:
        middles = self._sums[count] - self._sums[above] - (high + longest) / 2
        on_this = (high - ms) * ((1 - self.cdf(ms)) + lines / (count - 1)) / 2
        return on_this + (middles - lines * high) / (count - 1)

    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        lines = random.choice(list(pairwise(self.delays_ms)), shape)
        return random.uniform(lines[..., 0], lines[..., 1])

    @cached_property
    def _sums(self) -> list[float]:
        """The sum of the delays before each."""
        return list(accumulate(self.delays_ms, initial=0.0))

    @property
    def measured_delays(self) -> int:
        return len(self.delays_ms)

    def as_json(self) -> dict[str, Any]:
        """Return ``{"kind": "trace", "delays_ms": [1, 2, 3.5, …]}``."""
        return {"kind": self.kind, "delays_ms": [tidy(ms) for ms in self.delays_ms]}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Read the delays, in any order. Raises ``ValueError``."""
        delays = parameters.get("delays_ms")
        if set(parameters) != {"delays_ms"} or not isinstance(delays, list) or not 2 <= len(delays) <= DELAYS_MAX:
            raise ValueError(f"trace has delays_ms, a list of 2 to {DELAYS_MAX} numbers")
        if not all(type(ms) in _NUMBERS and 0 <= ms <= DELAY_MS_MAX for ms in delays):
            raise ValueError(f"delays_ms must hold numbers from 0 to {DELAY_MS_MAX}")
        return cls(tuple(sorted(delays)))
