"""Several delay models, each for a share of the entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from broker.delay.models import DELAY_MS_MAX, DelayModel, from_json, tidy
from broker.delay.trace import DELAYS_MAX

if TYPE_CHECKING:
    import numpy as np

    from broker.delay.models import Floats

PARTS_MAX = 10
_BISECTIONS = 60


@dataclass(frozen=True)
class Mixture(DelayModel):
    """``parts``: pairs of weight and model. Weights are relative; they need not add up to 1."""

    kind = "mixture"
    parts: tuple[tuple[float, DelayModel], ...]

    @property
    def mean_ms(self) -> float:
        return sum(weight * model.mean_ms for weight, model in self.parts) / self._total

    def quantile_ms(self, share: float) -> float:
        """Return the quantile, found by bisection between the parts' own quantiles."""
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
        for weight, model in self.parts:  # not sum(), which takes half as long again with so few parts
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
        """Return a delay: the number chooses the part, and what is left of the number the delay within it."""
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
        """Return ``{"kind": "mixture", "parts": [{"weight": 9, "model": {…}}, …]}``."""
        parts = [{"weight": tidy(weight), "model": model.as_json()} for weight, model in self.parts]
        return {"kind": self.kind, "parts": parts}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        parts = parameters.get("parts")
        if set(parameters) != {"parts"} or not isinstance(parts, list) or not 1 <= len(parts) <= PARTS_MAX:
            raise ValueError(f"mixture has parts, a list of 1 to {PARTS_MAX}")
        found = cls(tuple(map(cls._part, parts)))
        if found.measured_delays > DELAYS_MAX:
            raise ValueError(f"the traces of a mixture have at most {DELAYS_MAX} delays together")
        return found

    @classmethod
    def _part(cls, part: Any) -> tuple[float, DelayModel]:
        if not isinstance(part, dict) or set(part) != {"weight", "model"}:
            raise ValueError("each of the parts has a weight and a model")
        weight = part["weight"]
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= DELAY_MS_MAX:
            raise ValueError("a weight must be a number more than 0")
        if isinstance(part["model"], dict) and part["model"].get("kind") == cls.kind:
            raise ValueError("a mixture must not contain another mixture")
        return float(weight), from_json(part["model"])

    @cached_property
    def _total(self) -> float:
        return sum(weight for weight, _ in self.parts)
