"""Curves of staleness: reads by the time since their write, in steps."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np

from nodes.worker.run import Result, rmse, rounded

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


def microseconds(timestamp: str) -> int:
    """Since 1970."""
    return (datetime.fromisoformat(timestamp) - _EPOCH) // timedelta(microseconds=1)


def curve(edges: Any, t_ms: Any, stale: Any, predicted: Any | None = None) -> Result:
    """The share of stale reads in each step that has reads, and what was predicted for their times."""
    steps = len(edges) - 1
    step = np.digitize(t_ms, edges) - 1
    inside = (step >= 0) & (step < steps)
    count = np.bincount(step[inside], minlength=steps)
    some = count > 0

    def mean(values: Any) -> Any:
        weights = np.asarray(values, dtype=float)[inside]
        return np.bincount(step[inside], weights=weights, minlength=steps)[some] / count[some]

    found = {"t_ms": rounded(mean(t_ms), 3), "reads": count[some].tolist(), "measured": rounded(mean(stale))}
    if predicted is not None and some.any():
        found |= {"predicted": rounded(mean(predicted)), "rmse": rmse(mean(stale), mean(predicted))}
    return found
