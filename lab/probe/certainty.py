"""What brackets say for certain about the writes of a run, and with 95 % confidence about the store.

For the run's writes, the share of stale windows at a time t lies between share(low > t) and share(high > t). On top of
that comes the sampling error, by Wilson's interval on both ends. Lag comes in bursts, so neighboring writes are not
independent: n writes count as n / tau, where tau comes from the autocorrelation of "stale at t".
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from broker.stats import quantile_of_sorted

TIMES_SECONDS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHARES = (0.5, 0.95, 0.99)
EFFECTIVE_MIN = 30  # below, a run describes its own seconds only
_Z = 1.96  # 95 %
_CORRELATED = 2.0  # standard errors from which a correlation counts
_EPISODES = 4.5  # relative error of tau after one episode, by which 95 % bounds cover over 90 % even in long bursts

Floats = NDArray[np.float64]
Window = tuple[float, float | None]


class Bounds(NamedTuple):
    """``at_least`` and ``at_most``: for certain, of the run's writes; ``low`` and ``high``: with 95 % confidence.

    ``None``: the sample cannot tell.
    """

    at_least: float | None
    at_most: float | None
    low: float | None
    high: float | None


class Certainty:
    """The windows of a replica in the order of the writes, in seconds; an upper end of ``None`` is censored."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._low = np.array([low for low, _ in windows], dtype=float)
        self._high = np.array([np.inf if high is None else high for _, high in windows], dtype=float)
        self._tau_low = _worst(self._low)
        self._tau_high = _worst(self._high)

    @property
    def count(self) -> int:
        return len(self._low)

    @property
    def effective(self) -> float:
        """The number of independent writes that the run is worth.

        One of the two ends can be correlated only because writes and reads beat; the windows are not if the other
        is not.
        """
        pairs = ((tau(self._low > at) or 1.0, tau(self._high > at) or 1.0) for at in TIMES_SECONDS)
        return self.count / max(map(min, pairs))

    def stale(self, at: float) -> Bounds:
        """The share of writes that are not visible ``at`` seconds after their acknowledgement."""
        if not self.count:
            return Bounds(None, None, None, None)
        late_low, late_high = self._low > at, self._high > at
        at_least, at_most = float(late_low.mean()), float(late_high.mean())
        low, _ = wilson(at_least, self.count / (tau(late_low) or self._tau_low))
        _, high = wilson(at_most, self.count / (tau(late_high) or self._tau_high))
        return Bounds(at_least, at_most, low, high)

    def curve(self, times: Iterable[float] = TIMES_SECONDS) -> list[Bounds]:
        """The bounds at rising times: staleness only falls, so one time's bounds also hold for others."""
        found = [self.stale(at) for at in times]
        if not self.count:
            return found
        ends = np.array(found, dtype=float)
        ends[:, 2] = np.maximum.accumulate(ends[::-1, 2])[::-1]
        ends[:, 3] = np.minimum.accumulate(ends[:, 3])
        return [Bounds(*map(float, row)) for row in ends]

    def quantile(self, share: float) -> Bounds:
        """The seconds within which this share of writes becomes visible."""
        if not self.count:
            return Bounds(None, None, None, None)
        low, high = np.sort(self._low), np.sort(self._high)
        at_least, at_most = _quantile(low, share), _quantile(high, share)
        below = share - self._error(self._low, at_least, share, self._tau_low)
        above = share + self._error(self._high, at_most, share, self._tau_high)
        lowest = low[max(0, int(np.floor(below * self.count)) - 1)] if below > 0 else 0.0
        highest = high[min(self.count - 1, int(np.ceil(above * self.count)))] if above < 1 else np.inf
        return Bounds(_shown(at_least), _shown(at_most), _shown(lowest), _shown(highest))

    def _error(self, ends: Floats, quantile: float, share: float, otherwise: float) -> float:
        """The error of a share in the sample, which limits the ranks that the quantile of the store can have."""
        effective = self.count / (tau(ends > quantile) or otherwise)
        return _Z * float(np.sqrt(share * (1 - share) / effective))


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    count = max(1.0, count)
    scale = 1 + _Z**2 / count
    middle = (share + _Z**2 / (2 * count)) / scale
    half = _Z / scale * float(np.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2))
    return (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)


def tau(late: NDArray[np.bool_]) -> float | None:
    """Return the number of writes that count as one; ``None`` for a constant series, which does not show it.

    The sum of the autocorrelations up to the first that is noise, plus its error: it is known only as well as the
    number of episodes that it was estimated from allows.
    """
    centered = late - late.mean() if late.size else np.zeros(1)
    if not (variance := float((centered**2).mean())):
        return None
    size = 2 ** int(2 * late.size).bit_length()  # zeros, so that the end is not correlated with the start
    spectrum = np.fft.rfft(centered, size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, size)[: late.size] / late.size / variance
    noise = correlation < _CORRELATED / np.sqrt(late.size)
    until = int(np.argmax(noise)) if noise.any() else late.size
    if until <= 1:
        return 1.0
    episodes = (1 + np.count_nonzero(np.diff(late))) / 2
    return max(1.0, float((1 + 2 * correlation[1:until].sum()) * (1 + _EPISODES / np.sqrt(episodes))))


def _worst(ends: Floats) -> float:
    """The largest tau at any time, for a time at which the series is constant."""
    found: Iterable[float | None] = (tau(ends > at) for at in TIMES_SECONDS)
    return max((one for one in found if one is not None), default=1.0)


def _quantile(ordered: Floats, share: float) -> float:
    """The quantile, infinite if it depends on a censored value."""
    above = int(np.ceil(share * (len(ordered) - 1)))
    return quantile_of_sorted(ordered, share) if np.isfinite(ordered[above]) else float(np.inf)


def _shown(seconds: float) -> float | None:
    return max(0.0, float(seconds)) if np.isfinite(seconds) else None
