"""How likely a read some time after a write is stale: from the replicas' schedules alone.

A read ``t`` after a write finds it on a replica whose effective delay is at most ``t``. In order ``arrival`` that delay
is the model's. In order ``log`` it is a running maximum: an entry is not applied before those ahead of it. With writes
at random times (a Poisson process) at a rate r, and independent delays of distribution F, nothing ahead holds an entry
back beyond ``t`` with probability ``exp(-r * integral of 1 - F from t on)``, so that

    P(effective delay <= t) = F(t) * exp(-r * integral from t to infinity of (1 - F(u)) du).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from broker.delay.model import DELAY_MS_MAX, DelayModel
from broker.delay.schedule import Order

_AGES = 20_000
_GAMMA_SPREAD = 10.0


class Replicated(NamedTuple):
    """One replica as a prediction sees it. ``rate``: writes a second, which matters in order ``log`` only."""

    model: DelayModel
    order: Order = "log"
    rate: float = 0.0

    def fresh(self, t_ms: float) -> float:
        """P(the replica has a write ``t`` milliseconds after its commit)."""
        if t_ms >= DELAY_MS_MAX:
            return 1.0
        alone = self.model.cdf(t_ms)
        if alone == 0 or self.order == "arrival" or self.rate == 0:
            return alone
        return alone * math.exp(-self.rate / 1000 * self.model.beyond_ms(t_ms))

    def shows_newest(self, k: int) -> float:
        """P(a read at a random moment shows one of the newest ``k`` writes), which is k-staleness.

        In log order that is so when the k-th newest has been applied, whose age has a Gamma distribution. In order
        ``arrival`` any of the k will do; given the age of the k-th, the ages of the others are uniform below it.
        """
        if self.rate == 0:
            return 1.0  # the newest write was long ago
        rate = self.rate / 1000
        step_ms = (k + _GAMMA_SPREAD * math.sqrt(k) + 2 * _GAMMA_SPREAD) / rate / _AGES
        shown = weights = missed_ms = 0.0
        for number in range(_AGES):
            age_ms = (number + 0.5) * step_ms
            missed = 1 - self.fresh(age_ms)
            of_k = missed
            if self.order == "arrival":
                of_k *= ((missed_ms + missed * step_ms / 2) / age_ms) ** (k - 1)
            missed_ms += missed * step_ms
            weight = math.exp((k - 1) * math.log(rate * age_ms) - rate * age_ms - math.lgamma(k))
            shown += weight * (1 - of_k)
            weights += weight
        return shown / weights


class Curve(NamedTuple):
    """What is predicted at each of ``t_ms``: milliseconds since the write was committed.

    ``stale``: P(a read of a replica drawn at random does not show the write). ``converged``: P(every replica has it);
    the replicas' delays are independent, so this is the product of their distributions.
    """

    t_ms: list[float]
    stale: list[float]
    converged: list[float]


def predict(replicas: Sequence[Replicated], t_ms: Iterable[float]) -> Curve:
    """The curve of these replicas."""
    times = list(t_ms)
    fresh = [[replica.fresh(t) for replica in replicas] for t in times]
    return Curve(times, [1 - sum(each) / len(each) for each in fresh], [math.prod(each) for each in fresh])
