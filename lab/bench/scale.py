"""The size of a measurement: large enough to quote, or a quick smoke run; and reporting its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Step = Callable[[str], None]
"""Called every few seconds at most, with what is being measured."""


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
    idle_seconds: float


FULL = Scale(
    rounds=5, seconds=4, calls=3000, entries=200_000, windows=200, keys=1_000_000, more_entries=1_000_000,
    replicas=20, waiting=400, idle_seconds=20,
)  # fmt: skip
QUICK = Scale(
    rounds=2, seconds=1, calls=500, entries=10_000, windows=20, keys=20_000, more_entries=20_000,
    replicas=4, waiting=100, idle_seconds=2,
)  # fmt: skip
