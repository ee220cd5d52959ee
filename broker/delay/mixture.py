"""Several models, each for a share of the entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from broker.delay.model import DELAY_MS_MAX, DelayModel, tidy
from broker.delay.trace import DELAYS_MAX, Trace

PARTS_MAX = 10
_BISECTIONS = 60


@dataclass(frozen=True)
class Mixture:
    """``parts``: pairs of weight and model. The weights say how the shares compare; they need not add up to 1."""

    kind: ClassVar[str] = "mixture"
    parts: tuple[tuple[float, DelayModel], ...]

    @property
    def mean_ms(self) -> float:
        """The weighted mean of the parts' means."""
        return sum(weight * model.mean_ms for weight, model in self.parts) / self._total

    def quantile_ms(self, share: float) -> float:
        """Found by bisection, between the parts' own quantiles."""
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
        """The weighted mean of the parts' own."""
        found = 0.0
        for weight, model in self.parts:  # not sum(), which takes half as long again with so few parts
            found += weight * model.cdf(ms)
        return found / self._total

    def beyond_ms(self, ms: float) -> float:
        """The weighted mean of the parts' own."""
        found = 0.0
        for weight, model in self.parts:
            found += weight * model.beyond_ms(ms)
        return found / self._total

    def draw_ms(self, uniform: float) -> float:
        """The number chooses the part, and what is left of it the delay within that."""
        left = uniform * self._total
        for weight, model in self.parts:
            if left < weight:
                return model.draw_ms(left / weight)
            left -= weight
        weight, model = self.parts[-1]
        return model.draw_ms(uniform)

    def as_json(self) -> dict[str, Any]:
        """``{"kind": "mixture", "parts": [{"weight": 9, "model": {…}}, …]}``."""
        parts = [{"weight": tidy(weight), "model": model.as_json()} for weight, model in self.parts]
        return {"kind": self.kind, "parts": parts}

    @cached_property
    def _total(self) -> float:
        return sum(weight for weight, _ in self.parts)


def mixture(parameters: Mapping[str, Any], read: Callable[[Any], DelayModel]) -> Mixture:
    """Read a mixture; ``read`` reads the models in it. Raises ``ValueError``."""
    parts = parameters.get("parts")
    if set(parameters) != {"parts"} or not isinstance(parts, list) or not 1 <= len(parts) <= PARTS_MAX:
        raise ValueError(f"mixture has parts, a list of 1 to {PARTS_MAX}")
    found: list[tuple[float, DelayModel]] = []
    measured = 0
    for part in parts:
        if not isinstance(part, dict) or set(part) != {"weight", "model"}:
            raise ValueError("each of the parts has a weight and a model")
        weight = part["weight"]
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= DELAY_MS_MAX:
            raise ValueError("a weight is a number more than 0")
        model = read(part["model"])
        if isinstance(model, Mixture):
            raise ValueError("a mixture holds no other mixture")
        measured += len(model.delays_ms) if isinstance(model, Trace) else 0
        if measured > DELAYS_MAX:
            raise ValueError(f"the traces of a mixture have at most {DELAYS_MAX} delays together")
        found.append((float(weight), model))
    return Mixture(tuple(found))
