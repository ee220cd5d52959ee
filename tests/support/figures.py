"""Figures as they are printed."""

from __future__ import annotations

from collections.abc import Sequence

from broker import stats


def spread(name: str, values: Sequence[float]) -> str:
    """One line with the count, the percentiles and both ends."""
    found = stats.spread(values)
    return f"{name}: " + " ".join(f"{figure}={value}" for figure, value in found.items())
