"""Quantiles of measured values: one definition for everything the lab prints, checks or stores.

The quantile of a share s of n sorted values is at index s (n - 1), counted from 0, interpolated linearly: type 7 of
Hyndman and Fan, the default of numpy, R and k6. It means little without n, so it is reported with the count.
"""

from collections.abc import Sequence
from typing import Any

_PERCENTS = (50, 95, 99)

Spread = dict[str, float | int | None]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed. Raises ``IndexError`` if there are none."""
    return quantile_of_sorted(sorted(values), share)


def quantile_of_sorted(values: Any, share: float) -> float:
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
