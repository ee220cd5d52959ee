"""The groups of figures: each is a module of this package by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import cast

from lab.bench.figure import Figure
from lab.bench.scale import Scale
from lab.bench.step import Step

GROUPS = ("writes", "apply", "exactness", "growth", "crowd", "start", "tracing")


def measure(group: str, scale: Scale, step: Step) -> Iterator[Figure]:
    """Measure one of them. Raises ``LabError``."""
    found = import_module(f"lab.bench.{group}").measure
    return cast(Callable[[Scale, Step], Iterator[Figure]], found)(scale, step)
