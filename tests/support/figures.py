"""Figures, formatted for a test's output."""

from collections.abc import Sequence

from broker import stats


def spread(name: str, values: Sequence[float]) -> str:
    """Return a line with the count, minimum, percentiles and maximum."""
    found = stats.spread(values)
    return f"{name}: " + " ".join(f"{figure}={value}" for figure, value in found.items())
