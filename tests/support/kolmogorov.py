"""The one-sample Kolmogorov-Smirnov test."""

import math
from collections.abc import Callable, Sequence


def p_value(samples: Sequence[float], cdf: Callable[[float], float]) -> float:
    """Return the probability of at least this deviation from the distribution (asymptotic, Stephens' correction)."""
    ordered = sorted(samples)
    count = len(ordered)
    distance = max(
        max((rank + 1) / count - cdf(sample), cdf(sample) - rank / count) for rank, sample in enumerate(ordered)
    )
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))
