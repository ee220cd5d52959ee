"""A figure: measurements of the lab, round by round, and of a baseline in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from broker.stats import quantile


@dataclass(frozen=True)
class Target:
    """A bound of the ratio if there is a baseline, otherwise of the lab's own figure."""

    bound: Literal["at least", "at most"]
    value: float

    def reached_by(self, value: float) -> bool:
        """Return whether the value is within the bound."""
        return value >= self.value if self.bound == "at least" else value <= self.value


@dataclass(frozen=True)
class Figure:
    """A row of the table, in a group. ``lab`` and ``baseline`` have a number for each round, in ``unit``."""

    group: str
    name: str
    unit: str
    lab: Sequence[float]
    baseline_name: str = ""
    baseline: Sequence[float] = ()
    target: Target | None = None

    @property
    def ratios(self) -> list[float]:
        """The lab's number divided by the baseline's, in each round."""
        return [ours / theirs for ours, theirs in zip(self.lab, self.baseline, strict=False)]

    @property
    def judged(self) -> float:
        """The median of the numbers that the target bounds."""
        return quantile(self.ratios or self.lab, 0.5)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; ``None`` without a target."""
        return None if self.target is None else self.target.reached_by(self.judged)

    def as_json(self) -> dict[str, Any]:
        """Return medians, spread, and every round."""
        return {
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "lab": _spread(self.lab),
            "baseline_name": self.baseline_name,
            "baseline": _spread(self.baseline),
            "ratio": _spread(self.ratios),
            "target": self.target and asdict(self.target),
            "reached": self.reached,
        }


def _spread(rounds: Sequence[float]) -> dict[str, Any] | None:
    if not rounds:
        return None
    values = {"median": quantile(rounds, 0.5), "min": min(rounds), "max": max(rounds)}
    return {**{name: round(value, 4) for name, value in values.items()}, "rounds": [round(one, 4) for one in rounds]}
