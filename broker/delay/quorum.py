"""WARS: probabilistically bounded staleness of partial quorums.

Bailis et al., Probabilistically Bounded Staleness for Practical Partial Quorums, VLDB 2012. A write goes to all N
replicas and returns after the W fastest acknowledgements; a read asks all N and uses the R fastest answers. If W is the
delay of the write to a replica, A of its acknowledgement, R of the read to a replica, and S of the answer, a read that
starts ``t`` after the write returned is consistent if one of the R replicas had the write when the read arrived.

The lab's own reads ask exactly R replicas, drawn at random, and wait for all of their answers (``asks_all=False``). If
R and S are constant and the replicas have equal delays, their staleness is that of WARS: the fastest are random ones.
In order ``log`` the effective delays are running maxima over the writes, which then come at random times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from broker.delay.models import DelayModel, Fixed, Order
from broker.stats import quantile_of_sorted

Floats = NDArray[np.float64]
_NONE = Fixed(0)
_DELAYS = 750_000  # of one kind, in all replicas, drawn at once: bounds the memory
_STEADY_SHARE = 0.1  # of the writes, before and after which a sequence is not what it is in between


@dataclass(frozen=True)
class Ways:
    """The delays of one replica, and the order in which it applies and acknowledges."""

    write: DelayModel
    ack: DelayModel
    read: DelayModel
    answer: DelayModel = _NONE
    order: Order = "arrival"


@dataclass(frozen=True)
class Quorum:
    """N replicas, of which a read uses R and a write waits for W.

    ``rate``: writes per second, relevant in order ``log`` and for k-staleness. ``remote_ms``: added each way to all
    replicas but one, which is drawn per trial for writer and reader.
    """

    replicas: Sequence[Ways]
    r: int
    w: int
    rate: float = 0.0
    asks_all: bool = True
    remote_ms: float = 0.0

    def __post_init__(self) -> None:
        n = len(self.replicas)
        if not (1 <= self.r <= n and 1 <= self.w <= n):
            raise ValueError(f"R and W must lie between 1 and N = {n}, not {self.r} and {self.w}")


@dataclass(frozen=True)
class Outcome:
    """Ascending arrays, one value per trial: ms, and for ``missing`` versions.

    ``consistent_after`` counts from the write's return. ``missing``: by how many versions of a key a read at a random
    moment is behind the newest acknowledged one, if the writes have a rate and all are of that key; otherwise empty.
    """

    read_latency: Floats
    write_latency: Floats
    consistent_after: Floats
    missing: Floats

    def consistent(self, t_ms: float) -> float:
        """Return P(a read ``t`` after the write returned is consistent)."""
        return _share(self.consistent_after, t_ms)

    def within(self, share: float) -> float:
        """Return the time after which this share of reads is consistent."""
        return max(0.0, quantile_of_sorted(self.consistent_after, share))

    def shows_newest(self, k: int) -> float:
        """Return P(a read at a random moment shows one of the newest ``k`` versions up to the acknowledged one)."""
        return _share(self.missing, k - 1)


def simulate(quorum: Quorum, *, trials: int, seed: int = 0) -> Outcome:
    random = np.random.default_rng(seed)
    at_once = max(1, _DELAYS // len(quorum.replicas))
    parts = [_batch(quorum, random, min(at_once, trials - done)) for done in range(0, trials, at_once)]
    names = [field.name for field in fields(Outcome)]
    return Outcome(*(np.sort(np.concatenate([getattr(part, name) for part in parts])) for name in names))


def _batch(quorum: Quorum, random: np.random.Generator, trials: int) -> Outcome:
    """One sequence of writes, with a read after each."""
    ways, shape = quorum.replicas, (trials, len(quorum.replicas))
    to_write, to_read = _remote(quorum, random, shape), _remote(quorum, random, shape)
    since_ms = random.exponential(1000 / quorum.rate, trials) if quorum.rate else np.zeros(trials)
    at_ms = np.cumsum(since_ms)[:, None]
    in_order = [way.order == "log" and quorum.rate > 0 for way in ways]

    def draw(models: Sequence[DelayModel]) -> Floats:
        return np.column_stack([model.sample(random, (trials,)) for model in models])

    def effective(delays: Floats) -> Floats:
        held = np.maximum.accumulate(at_ms + delays, axis=0) - at_ms if any(in_order) else delays
        return np.where(in_order, held, delays)

    applied = effective(draw([way.write for way in ways]) + to_write)
    acked = effective(applied + draw([way.ack for way in ways]) + to_write)
    returned = np.sort(acked, axis=1)[:, quorum.w - 1]
    reads = draw([way.read for way in ways]) + to_read
    answered = reads + draw([way.answer for way in ways]) + to_read
    used = np.argsort(answered if quorum.asks_all else random.random(shape), axis=1)[:, : quorum.r]
    return Outcome(
        read_latency=np.take_along_axis(answered, used, axis=1).max(axis=1),
        write_latency=returned,
        consistent_after=np.take_along_axis(applied - reads, used, axis=1).min(axis=1) - returned,
        missing=_missing(at_ms, applied, returned, (random, reads, used)) if quorum.rate else np.zeros(0),
    )


def _missing(
    at_ms: Floats, applied: Floats, returned: Floats, read: tuple[np.random.Generator, Floats, NDArray[np.intp]]
) -> Floats:
    """The versions that reads at random moments miss, if each write is a version of one key."""
    random, reads, used = read
    trials, n = applied.shape
    first, last = at_ms[int(trials * _STEADY_SHARE), 0], at_ms[int(trials * (1 - _STEADY_SHARE)), 0]
    moments = np.sort(random.uniform(first, last, trials))  # which makes the searches fast
    shown = [np.searchsorted(_from(at_ms[:, 0] + applied[:, i]), moments + reads[:, i], "right") for i in range(n)]
    newest = np.searchsorted(_from(at_ms[:, 0] + returned), moments, "right")
    shown_by_read = np.take_along_axis(np.column_stack(shown), used, axis=1).max(axis=1)
    missing: Floats = np.maximum(0, newest - shown_by_read, dtype=np.float64)
    return missing


def _from(times_ms: Floats) -> Floats:
    """When each version or a newer one is there first, by the time that each itself is."""
    return np.minimum.accumulate(times_ms[::-1])[::-1]


def _remote(quorum: Quorum, random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    if not quorum.remote_ms:
        return np.zeros(shape)
    local = random.integers(0, shape[1], shape[0])
    return np.where(np.arange(shape[1]) == local[:, None], 0.0, quorum.remote_ms)


def _share(ascending: Floats, limit: float) -> float:
    """The share of values up to a limit."""
    return float(np.searchsorted(ascending, limit, "right") / len(ascending))
