"""A figure: what was measured of the lab, round by round, and of a baseline in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from broker.stats import quantile


@dataclass(frozen=True)
class Target:
    """What is to be reached: of the ratio where there is a baseline, of the lab's own figure otherwise."""

    bound: Literal["at least", "at most"]
    value: float

    def reached_by(self, value: float) -> bool:
        """Whether that is good enough."""
        return value >= self.value if self.bound == "at least" else value <= self.value


@dataclass(frozen=True)
class Figure:
    """One line of the table. ``lab`` and ``baseline`` have a number for each round, in ``unit``.

    ``group`` says which part of the bench it comes from. A figure without a baseline stands for itself.
    """

    group: str
    name: str
    unit: str
    lab: Sequence[float]
    baseline_name: str = ""
    baseline: Sequence[float] = field(default=())
    target: Target | None = None

    @property
    def ratios(self) -> list[float]:
        """Lab by baseline, in each round."""
        return [ours / theirs for ours, theirs in zip(self.lab, self.baseline, strict=False)]

    @property
    def judged(self) -> float:
        """The median of what the target is about."""
        return quantile(self.ratios or self.lab, 0.5)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; ``None`` where there is none."""
        return None if self.target is None else self.target.reached_by(self.judged)

    def as_json(self) -> dict[str, Any]:
        """Medians and spread, and every round."""
        return {
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "lab": _spread(self.lab),
            "baseline_name": self.baseline_name,
            "baseline": _spread(self.baseline),
            "ratio": _spread(self.ratios),
            "target": None if self.target is None else {"bound": self.target.bound, "value": self.target.value},
            "reached": self.reached,
        }


def _spread(rounds: Sequence[float]) -> dict[str, Any] | None:
    if not rounds:
        return None
    return {
        "median": round(quantile(rounds, 0.5), 4),
        "min": round(min(rounds), 4),
        "max": round(max(rounds), 4),
        "rounds": [round(one, 4) for one in rounds],
    }
