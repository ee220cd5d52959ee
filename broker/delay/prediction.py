"""The probability that a read some time after a write is stale, from the replicas' delay models and orders alone.

A read ``t`` after a write finds it on a replica whose effective delay is at most ``t``. In order ``arrival`` that delay
is the model's. In order ``log`` it is a running maximum: an entry waits for all entries ahead of it. With writes
at random times (a Poisson process) at a rate r, and independent delays of distribution F, nothing ahead holds an entry
back beyond ``t`` with probability ``exp(-r * integral of 1 - F from t on)``, so that

    P(effective delay <= t) = F(t) * exp(-r * integral from t to infinity of (1 - F(u)) du).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from broker.delay.models import DELAY_MS_MAX, DelayModel, Order, from_json

_AGES = 20_000  # steps of the numerical integral over the age of the k-th newest write
_GAMMA_SPREAD = 10.0  # standard deviations of that age after which the integral ends


class Replicated(NamedTuple):
    """One replica's input to a prediction. ``rate``: writes per second, relevant in order ``log`` only."""

    model: DelayModel
    order: Order = "log"
    rate: float = 0.0

    def fresh(self, t_ms: float) -> float:
        """Return P(the replica has a write ``t`` milliseconds after its commit)."""
        if t_ms >= DELAY_MS_MAX:
            return 1.0
        alone = self.model.cdf(t_ms)
        if alone == 0 or self.order == "arrival" or self.rate == 0:
            return alone
        return alone * math.exp(-self.rate / 1000 * self.model.beyond_ms(t_ms))

    def shows_newest(self, k: int) -> float:
        """Return P(a read at a random moment shows one of the newest ``k`` writes), which is k-staleness.

        In log order the k-th newest must have been applied; its age has a Gamma distribution. In order ``arrival``
        any of the k suffices; given the age of the k-th, the ages of the others are uniform below it.
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
    """The prediction at each of ``t_ms``, milliseconds since the commit. ``stale``: P(a read of a random replica does
    not show the write). ``converged``: P(every replica has it), the product of their independent distributions.
    """

    t_ms: list[float]
    stale: list[float]
    converged: list[float]

    def converged_ms(self, share: float) -> float | None:
        """Return the first time by which this share of writes is on every replica; ``None`` if beyond the curve."""
        return next((t for t, found in zip(self.t_ms, self.converged, strict=True) if found >= share), None)


def replicated(delays: Mapping[str, Any], rate: float, order: Order | None = None) -> list[Replicated]:
    """Return the replicas in the primary's delays response; ``order`` overrides their order."""
    return [Replicated(from_json(model), order or delays["orders"][of], rate) for of, model in delays["models"].items()]


def moments(until_ms: float, points: int) -> list[float]:
    return [until_ms * point / (points - 1) for point in range(points)]


def predict(replicas: Sequence[Replicated], t_ms: Iterable[float]) -> Curve:
    times = list(t_ms)
    fresh = [[replica.fresh(t) for replica in replicas] for t in times]
    return Curve(times, [1 - sum(each) / len(each) for each in fresh], [math.prod(each) for each in fresh])


def newest(replicas: Sequence[Replicated], k: int) -> float:
    """Return P(a read of a replica drawn at random shows one of the newest ``k`` writes)."""
    return sum(replica.shows_newest(k) for replica in replicas) / len(replicas)
