"""Delay models built from measured delays or from other models."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Self

from broker.delay.models import DELAY_MS_MAX, DelayModel, from_json, tidy
from broker.stats import quantile_of_sorted

if TYPE_CHECKING:
    import numpy as np

    from broker.delay.models import Floats

DELAYS_MAX = 10_000
_NUMBERS = frozenset({int, float})  # excludes bool, a subclass of int
PARTS_MAX = 10
_BISECTIONS = 60


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
        """Return the area above the segment that contains ``ms``, and above the segments after it."""
        count = len(self.delays_ms)
        above = bisect_right(self.delays_ms, ms)
        if above == count:
            return 0.0
        high, longest = self.delays_ms[above], self.delays_ms[-1]
        lines = count - 1 - above  # after this one; the sum of their middles:
        middles = self._sums[count] - self._sums[above] - (high + longest) / 2
        on_this = (high - ms) * ((1 - self.cdf(ms)) + lines / (count - 1)) / 2
        return on_this + (middles - lines * high) / (count - 1)

    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        lines = random.choice(list(pairwise(self.delays_ms)), shape)
        return random.uniform(lines[..., 0], lines[..., 1])

    @cached_property
    def _sums(self) -> list[float]:
        return list(accumulate(self.delays_ms, initial=0.0))

    @property
    def measured_delays(self) -> int:
        return len(self.delays_ms)

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "delays_ms": [tidy(ms) for ms in self.delays_ms]}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        delays = parameters.get("delays_ms")
        if set(parameters) != {"delays_ms"} or not isinstance(delays, list) or not 2 <= len(delays) <= DELAYS_MAX:
            raise ValueError(f"trace requires delays_ms, a list of 2 to {DELAYS_MAX} numbers")
        if not all(type(ms) in _NUMBERS and 0 <= ms <= DELAY_MS_MAX for ms in delays):
            raise ValueError(f"delays_ms must hold numbers from 0 to {DELAY_MS_MAX}")
        return cls(tuple(sorted(delays)))


@dataclass(frozen=True)
class Mixture(DelayModel):
    """``parts``: pairs of weight and model. Weights are relative; they need not add up to 1."""

    kind = "mixture"
    parts: tuple[tuple[float, DelayModel], ...]

    @property
    def mean_ms(self) -> float:
        return sum(weight * model.mean_ms for weight, model in self.parts) / self._total

    def quantile_ms(self, share: float) -> float:
        found = [model.quantile_ms(share) for _, model in self.parts]
        low, high = min(found), max(found)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if self.cdf(middle) < share:
                low = middle
            else:
                high = middle
        return high

    def cdf(self, ms: float) -> float:
        found = 0.0
        for weight, model in self.parts:  # sum() takes 50% longer for this few parts
            found += weight * model.cdf(ms)
        return found / self._total

    def beyond_ms(self, ms: float) -> float:
        found = 0.0
        for weight, model in self.parts:
            found += weight * model.beyond_ms(ms)
        return found / self._total

    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        which = random.choice(len(self.parts), shape, p=[weight / self._total for weight, _ in self.parts])
        found = which.astype(float)
        for number, (_, model) in enumerate(self.parts):
            chosen = which == number
            found[chosen] = model.sample(random, (int(chosen.sum()),))
        return found

    def draw_ms(self, uniform: float) -> float:
        """Return a delay: the number selects the part, and its remainder the delay within that part."""
        left = uniform * self._total
        for weight, model in self.parts:
            if left < weight:
                return model.draw_ms(left / weight)
            left -= weight
        return self.parts[-1][1].draw_ms(uniform)

    @property
    def measured_delays(self) -> int:
        return sum(model.measured_delays for _, model in self.parts)

    def as_json(self) -> dict[str, Any]:
        parts = [{"weight": tidy(weight), "model": model.as_json()} for weight, model in self.parts]
        return {"kind": self.kind, "parts": parts}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        parts = parameters.get("parts")
        if set(parameters) != {"parts"} or not isinstance(parts, list) or not 1 <= len(parts) <= PARTS_MAX:
            raise ValueError(f"mixture requires parts, a list of 1 to {PARTS_MAX}")
        found = cls(tuple(map(cls._part, parts)))
        if found.measured_delays > DELAYS_MAX:
            raise ValueError(f"the traces of a mixture can have at most {DELAYS_MAX} delays together")
        return found

    @classmethod
    def _part(cls, part: Any) -> tuple[float, DelayModel]:
        if not isinstance(part, dict) or set(part) != {"weight", "model"}:
            raise ValueError("each part requires a weight and a model")
        weight = part["weight"]
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= DELAY_MS_MAX:
            raise ValueError("a weight must be a number greater than 0")
        if isinstance(part["model"], dict) and part["model"].get("kind") == cls.kind:
            raise ValueError("a mixture must not contain another mixture")
        return float(weight), from_json(part["model"])

    @cached_property
    def _total(self) -> float:
        return sum(weight for weight, _ in self.parts)
