"""The schedule of a run's faults, drawn from its seed before it starts.

So faults can be left out without moving the others. How long and how much is part of a drawn fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import NamedTuple

from lab.simulation.world import Shape


class Fault(NamedTuple):
    """``size`` and ``more`` are drawn uniformly between 0 and 1: how long it lasts, and how large it is."""

    number: int
    at_seconds: float
    kind: str
    target: int  # of several, by its number
    size: float
    more: float

    def seconds(self, low: float, high: float) -> float:
        """Return how long it lasts: more often short than long."""
        return low + (high - low) * self.size**2


# How often each kind is drawn, relative to the others.
_WEIGHTS = {
    "kill": 6,
    "power_loss": 3,
    "damage": 1,
    "hang": 3,
    "slow": 2,
    "full_disk": 3,
    "clock": 1,
    "away": 1,
    "join": 1,
    "replica_fault": 7,
    "delay": 5,
    "order": 3,
    "reset": 3,
    "resync": 4,
    "trim": 2,
    "foreign_entry": 2,
    "partition": 7,
    "log_restart": 4,
    "log_power_loss": 6,
    "log_hang": 3,
    "log_refuses": 2,
    "log_clock": 2,
    "failover": 8,
    "failback": 6,
}
KINDS = tuple(_WEIGHTS)


def draw(random: Random, shape: Shape, windows: Iterable[tuple[float, float]], gap_seconds: float) -> list[Fault]:
    """Return the faults of a run in a lab of this shape: within these windows of time, a gap apart on average."""
    kinds = {kind: weight for kind, weight in _WEIGHTS.items() if _can_happen(kind, shape)}
    faults: list[Fault] = []
    for start, end in windows:
        at = start + random.expovariate(1 / gap_seconds)
        while at < end:
            (kind,) = random.choices(list(kinds), list(kinds.values()))
            numbers = random.randrange(1000), random.random(), random.random()
            faults.append(Fault(len(faults), round(at, 3), kind, *numbers))
            at += random.expovariate(1 / gap_seconds)
    return faults


def _can_happen(kind: str, shape: Shape) -> bool:
    """Without other servers none takes over; with all copies awaited, one does when the master's disk is lost."""
    return {"failover": shape.has_sentinel, "failback": shape.has_sentinel, "log_power_loss": not shape.copies}.get(
        kind, True
    )
