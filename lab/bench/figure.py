"""Figures of the bench, and the groups and scales in which they are measured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal

from broker.stats import quantile

# modules of this package
GROUPS = ("writes", "durability", "apply", "exactness", "growth", "crowd", "listeners", "start", "tracing")
Step = Callable[[str], None]  # called at most every few seconds, with the current measurement


@dataclass(frozen=True)
class Scale:
    """Rounds and sizes. ``seconds``: the length of one load."""

    rounds: int
    seconds: float
    calls: int
    entries: int
    windows: int
    keys: int
    more_entries: int
    replicas: int
    waiting: int
    listeners: int
    idle_seconds: float


FULL = Scale(
    rounds=5, seconds=4, calls=3000, entries=200_000, windows=200, keys=1_000_000, more_entries=1_000_000,
    replicas=20, waiting=400, listeners=200, idle_seconds=20,
)  # fmt: skip
QUICK = Scale(
    rounds=2, seconds=1, calls=500, entries=10_000, windows=20, keys=20_000, more_entries=20_000,
    replicas=4, waiting=100, listeners=50, idle_seconds=2,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A bound of the ratio if there is a baseline, otherwise of the lab's own figure."""

    bound: Literal["at least", "at most"]
    value: float


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
        return [ours / theirs for ours, theirs in zip(self.lab, self.baseline, strict=False)]

    @property
    def judged(self) -> float:
        """The median of the numbers that the target bounds."""
        return quantile(self.ratios or self.lab, 0.5)

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.judged >= self.target.value if self.target.bound == "at least" else self.judged <= self.target.value

    def as_json(self) -> dict[str, Any]:
        rounds = {"lab": _spread(self.lab), "baseline": _spread(self.baseline), "ratio": _spread(self.ratios)}
        return {**asdict(self), **rounds, "reached": self.reached}


def _spread(rounds: Sequence[float]) -> dict[str, Any] | None:
    if not rounds:
        return None
    values = {"median": quantile(rounds, 0.5), "min": min(rounds), "max": max(rounds)}
    return {**{name: round(value, 4) for name, value in values.items()}, "rounds": [round(one, 4) for one in rounds]}


def measure_of(group: str) -> Callable[[Scale, Step], Iterator[Figure]]:
    found: Callable[[Scale, Step], Iterator[Figure]] = import_module(f"lab.bench.{group}").measure
    return found
