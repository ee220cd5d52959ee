"""The groups of figures: each is the module of this package with its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from lab.bench.figure import Figure
from lab.bench.scale import Scale, Step

GROUPS = ("writes", "apply", "exactness", "growth", "crowd", "start", "tracing")


def measure_of(group: str) -> Callable[[Scale, Step], Iterator[Figure]]:
    """Return the function that measures a group; it raises ``LabError``."""
    found: Callable[[Scale, Step], Iterator[Figure]] = import_module(f"lab.bench.{group}").measure
    return found
