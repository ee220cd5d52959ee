"""The shortest delay that each replica may have had, at every moment of a run: nothing may be seen before it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

# A replica that is partitioned or being started again goes on with the delay of before until it hears of the new one.
_LEARNS_WITHIN_US = 15_000_000


class Floors:
    """The delays that were set, as far as they are known."""

    def __init__(self, ahead_ms: float) -> None:
        """``ahead_ms``: how far a replica's clock may be ahead."""
        self._ahead_ms = ahead_ms
        self._set: dict[str, list[tuple[int, float]]] = {}

    def add(self, replica: str, at_us: int, least_ms: float) -> None:
        """From ``at_us`` on the replica may have a delay of so little. Later additions are of later times."""
        self._set.setdefault(replica, []).append((at_us, least_ms))

    def least_ms(self, replica: str, since_us: int, until_us: int) -> float:
        """The least that the replica's delay may have been at any time in between; 0 where nothing is known."""
        found = self._set.get(replica, [])
        first = bisect_right(found, (since_us - _LEARNS_WITHIN_US, math.inf)) - 1
        last = bisect_left(found, (until_us, math.inf))
        if first < 0:
            first = 0
            if not found or found[0][0] > since_us:
                return 0.0
        return max(0.0, min(least for _, least in found[first:last]) - self._ahead_ms)
