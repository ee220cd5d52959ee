"""Figures as they are printed and judged."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(name: str, values: Sequence[float]) -> str:
    """One line with minimum, median, 99th percentile and maximum."""
    figures = (min(values), quantile(values, 0.5), quantile(values, 0.99), max(values))
    return (
        f"{name}: n={len(values)} min={figures[0]:.3f} p50={figures[1]:.3f} p99={figures[2]:.3f} max={figures[3]:.3f}"
    )
