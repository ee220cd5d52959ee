"""WARS: probabilistically bounded staleness of partial quorums.

Bailis et al., Probabilistically Bounded Staleness for Practical Partial Quorums, VLDB 2012. A write goes to all N
replicas and returns after the W fastest acknowledgements; a read asks all N and uses the R fastest answers. If W is the
delay of the write to a replica, A of its acknowledgement, R of the read to a replica, and S of the answer, a read that
starts ``t`` after the write returned is consistent if one of the R replicas had the write when the read arrived.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.delay.models import DelayModel
from broker.stats import quantile_of_sorted

Floats = NDArray[np.float64]
_BATCH = 250_000  # trials at once, which bounds the memory


@dataclass(frozen=True)
class Ways:
    """Delays in ms. ``remote_ms`` is added each way to all replicas but one, drawn per trial for writer and reader."""

    write: DelayModel
    ack: DelayModel
    read: DelayModel
    answer: DelayModel
    remote_ms: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Ascending arrays in ms, one value per trial; ``consistent_after`` counts from the write's return."""

    read_latency: Floats
    write_latency: Floats
    consistent_after: Floats

    def consistent(self, t_ms: float) -> float:
        """Return P(a read ``t`` after the write returned is consistent)."""
        return float(np.mean(self.consistent_after <= t_ms))

    def within(self, share: float) -> float:
        """Return the time after which this share of reads is consistent."""
        return max(0.0, quantile_of_sorted(self.consistent_after, share))


def simulate(ways: Ways, *, n: int, r: int, w: int, trials: int, seed: int = 0) -> Outcome:
    """Run the trials. Raises ``ValueError`` if R or W is not from 1 to N."""
    if not (1 <= r <= n and 1 <= w <= n):
        raise ValueError(f"R and W must lie between 1 and N = {n}, not {r} and {w}")
    random = np.random.default_rng(seed)
    batches = [min(_BATCH, trials - done) for done in range(0, trials, _BATCH)]
    parts = [_batch(ways, random, count, (n, r, w)) for count in batches]
    return Outcome(*(np.sort(np.concatenate(column)) for column in zip(*parts, strict=True)))


def _batch(
    ways: Ways, random: np.random.Generator, trials: int, quorum: tuple[int, int, int]
) -> tuple[Floats, Floats, Floats]:
    n, r, w = quorum
    shape = (trials, n)
    to_write, to_read = _remote(ways, random, shape), _remote(ways, random, shape)
    writes = ways.write.sample(random, shape) + to_write
    acked = np.sort(writes + ways.ack.sample(random, shape) + to_write, axis=1)[:, w - 1]
    reads = ways.read.sample(random, shape) + to_read
    answered = reads + ways.answer.sample(random, shape) + to_read
    fastest = np.argsort(answered, axis=1)[:, :r]
    missing = np.take_along_axis(writes - reads, fastest, axis=1).min(axis=1) - acked
    return np.take_along_axis(answered, fastest[:, r - 1 :], axis=1)[:, 0], acked, missing


def _remote(ways: Ways, random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    if not ways.remote_ms:
        return np.zeros(shape)
    local = random.integers(0, shape[1], shape[0])
    return np.where(np.arange(shape[1]) == local[:, None], 0.0, ways.remote_ms)
