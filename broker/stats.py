"""Quantiles of what was measured: one definition for everything that the lab prints, judges or stores.

The quantile of a share s of n sorted values lies at place s (n - 1), counted from 0; between two values it is
interpolated linearly. That is type 7 of Hyndman and Fan, the default of numpy and R, and what k6 prints. Without n it
says little: the 99th percentile of 20 values is nearly their maximum. So it is quoted together with the count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PERCENTS = (50, 95, 99)

Spread = dict[str, float | int | None]


def quantile(values: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """The value that this share of the values does not exceed. Raises ``IndexError`` where there are none."""
    return float(np.quantile(values, share))


def spread(values: Sequence[float]) -> Spread:
    """How many, the least, the percentiles, the most; rounded to a microsecond where they are milliseconds."""
    if not values:
        return {"count": 0, "min": None, **{f"p{percent}": None for percent in _PERCENTS}, "max": None}
    figures = {f"p{percent}": quantile(values, percent / 100) for percent in _PERCENTS}
    found = {"min": min(values), **figures, "max": max(values)}
    return {"count": len(values), **{name: round(value, 3) for name, value in found.items()}}
