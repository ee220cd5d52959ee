"""Quantiles of measured values: one definition for everything that the lab prints, judges or stores.

The quantile of a share s of n sorted values lies at place s (n - 1), counted from 0; between two values it is
interpolated linearly. That is type 7 of Hyndman and Fan, the default of numpy and R, and what k6 prints. It means
little without n (the 99th percentile of 20 values is nearly their maximum), so it is quoted together with the count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_PERCENTS = (50, 95, 99)

Spread = dict[str, float | int | None]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed. Raises ``IndexError`` if there are none."""
    return quantile_of_sorted(sorted(values), share)


def quantile_of_sorted(values: Any, share: float) -> float:
    """Return ``quantile`` of an ascending sequence or array. Raises ``IndexError`` if there are none."""
    at = share * (len(values) - 1)
    below = int(at)
    low, high = float(values[below]), float(values[min(below + 1, len(values) - 1)])
    return low + (at - below) * (high - low)


def spread(values: Sequence[float]) -> Spread:
    """Return count, minimum, percentiles and maximum, rounded to a microsecond if they are milliseconds."""
    if not values:
        return {"count": 0, "min": None, **{f"p{percent}": None for percent in _PERCENTS}, "max": None}
    ordered = sorted(values)
    figures = {f"p{percent}": quantile_of_sorted(ordered, percent / 100) for percent in _PERCENTS}
    found = {"min": ordered[0], **figures, "max": ordered[-1]}
    return {"count": len(values), **{name: round(value, 3) for name, value in found.items()}}
