"""Drawing many delays at once, distributed as a delay model says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from broker.delay import DelayModel, Exponential, Fixed, Lognormal, Mixture, Pareto, Trace, Uniform

Floats = NDArray[np.float64]


def draw_ms(model: DelayModel, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """An array of independent delays in milliseconds."""
    found: Floats
    match model:
        case Fixed(ms):
            found = np.full(shape, float(ms))
        case Uniform(low_ms, high_ms):
            found = random.uniform(low_ms, high_ms, shape)
        case Exponential(mean_ms):
            found = random.exponential(mean_ms, shape)
        case Lognormal(median_ms, sigma):
            found = random.lognormal(np.log(median_ms), sigma, shape)
        case Pareto(scale_ms, alpha):
            found = scale_ms * (1 + random.pareto(alpha, shape))
        case Trace(delays_ms):
            found = np.interp(random.random(shape), np.linspace(0, 1, len(delays_ms)), delays_ms)
        case Mixture(parts):
            found = _draw_mixture(parts, random, shape)
        case _:
            raise TypeError(f"no way to draw from {model!r}")
    return found


def _draw_mixture(
    parts: Sequence[tuple[float, DelayModel]], random: np.random.Generator, shape: tuple[int, ...]
) -> Floats:
    bounds = np.cumsum([weight for weight, _ in parts])
    which = np.searchsorted(bounds, random.random(shape) * bounds[-1], side="right")
    found = np.empty(shape)
    for number, (_, part) in enumerate(parts):
        chosen = which == number
        found[chosen] = draw_ms(part, random, (int(chosen.sum()),))
    return found
