"""How likely a read some time after a write is stale: from the replicas' schedules alone.

A read ``t`` after a write finds it on a replica whose effective delay is at most ``t``. In order ``arrival`` that delay
is the model's. In order ``log`` it is a running maximum: an entry is not applied before those ahead of it. With writes
at random times (a Poisson process) at a rate r, and independent delays of distribution F, nothing ahead holds an entry
back beyond ``t`` with probability ``exp(-r * integral of 1 - F from t on)``, so that

    P(effective delay <= t) = F(t) * exp(-r * integral from t to infinity of (1 - F(u)) du).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from broker.delay.model import DELAY_MS_MAX, DelayModel
from broker.delay.schedule import Order

Floats = NDArray[np.float64]

_STEPS = 5_000
_AGES = 20_001
_GAMMA_SPREAD = 10.0
_TAIL = 1e-9


@dataclass(frozen=True)
class Replicated:
    """One replica as a prediction sees it. ``rate``: writes a second, which matters in order ``log`` only."""

    model: DelayModel
    order: Order = "log"
    rate: float = 0.0

    def fresh(self, t_ms: Floats) -> Floats:
        """P(the replica has a write ``t`` milliseconds after its commit)."""
        alone = np.array([self.model.cdf(float(t)) for t in t_ms])
        if self.order == "arrival" or self.rate == 0:
            return alone
        held: Floats = np.exp(-self.rate / 1000 * self._remaining_ms(t_ms))
        return alone * held

    def shows_newest(self, k: int) -> float:
        """P(a read at a random moment shows one of the newest ``k`` writes), which is k-staleness.

        In log order that is so when the k-th newest has been applied, whose age has a Gamma distribution. In order
        ``arrival`` any of the k will do; given the age of the k-th, the ages of the others are uniform below it.
        """
        if self.rate == 0:
            return 1.0  # the newest write was long ago
        rate = self.rate / 1000
        age_ms = np.linspace(0, (k + _GAMMA_SPREAD * np.sqrt(k) + 2 * _GAMMA_SPREAD) / rate, _AGES)
        weight = np.exp((k - 1) * np.log(rate * age_ms[1:]) - rate * age_ms[1:] - lgamma(k))
        weight = np.concatenate([[1.0 if k == 1 else 0.0], weight])
        missed = 1 - self.fresh(age_ms)
        if self.order == "arrival":
            pieces = (missed[1:] + missed[:-1]) / 2 * np.diff(age_ms)
            mean_missed = np.concatenate([[1.0], np.cumsum(pieces) / age_ms[1:]])
            missed = missed * mean_missed ** (k - 1)
        return float(1 - np.trapezoid(missed * weight, age_ms) / np.trapezoid(weight, age_ms))

    def _remaining_ms(self, t_ms: Floats) -> Floats:
        """The integral of 1 - F from each t on, by the trapezoid rule on a grid that is fine where F moves."""
        shares = np.concatenate([np.linspace(0, 0.99, _STEPS), 1 - np.geomspace(0.01, _TAIL, _STEPS)])
        quantiles = [min(DELAY_MS_MAX, self.model.quantile_ms(float(share))) for share in shares]
        grid = np.unique(np.concatenate([[0.0], quantiles, t_ms]))
        late = 1 - np.array([self.model.cdf(float(u)) for u in grid])
        pieces = (late[1:] + late[:-1]) / 2 * np.diff(grid)
        from_here = np.concatenate([np.cumsum(pieces[::-1])[::-1], [0.0]])
        found: Floats = np.interp(t_ms, grid, from_here)
        return found


@dataclass(frozen=True)
class Curve:
    """What is predicted at each of ``t_ms``: milliseconds since the write was committed.

    ``stale``: a read of a replica drawn at random does not show the write. ``converged``: every replica has it; the
    replicas' delays are independent, so this is the product of their distributions.
    """

    t_ms: Floats
    fresh: list[Floats]

    @property
    def stale(self) -> Floats:
        """P(a read of a random replica is stale)."""
        found: Floats = 1 - np.mean(self.fresh, axis=0)
        return found

    @property
    def converged(self) -> Floats:
        """P(the consistency window is at most t)."""
        found: Floats = np.prod(self.fresh, axis=0)
        return found


def predict(replicas: Sequence[Replicated], t_ms: Floats) -> Curve:
    """The curve of these replicas."""
    return Curve(t_ms, [replica.fresh(t_ms) for replica in replicas])
