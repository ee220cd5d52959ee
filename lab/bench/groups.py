"""The groups of figures: each is a module of this package by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from lab.bench.figure import Figure
from lab.bench.scale import Scale
from lab.bench.step import Step

GROUPS = ("writes", "apply", "exactness", "growth", "crowd", "start", "tracing")


def measure_of(group: str) -> Callable[[Scale, Step], Iterator[Figure]]:
    """What measures a group, and raises ``LabError``."""
    found: Callable[[Scale, Step], Iterator[Figure]] = import_module(f"lab.bench.{group}").measure
    return found
