"""The moment a write became visible on a replica: for certain after one moment and at or before another."""

from collections.abc import Mapping
from typing import NamedTuple


class Write(NamedTuple):
    """A write; moments are seconds by one monotonic clock. ``acked``: ``None`` if it was not acknowledged."""

    number: int
    key: str
    sent: float
    acked: float | None


class Bracket(NamedTuple):
    """When an acknowledged write became visible: after ``low``, and at or before ``high``.

    ``low`` is the sending of the last stale read, or of the write if no read was stale; ``high`` is the receipt of the
    first fresh read, ``None`` if the write was not seen by the end. The window starts at the acknowledgement.
    """

    number: int
    sent: float
    acked: float
    low: float
    high: float | None

    @property
    def window(self) -> tuple[float, float | None]:
        return self.low - self.acked, None if self.high is None else self.high - self.acked


class _Unseen(NamedTuple):
    key: str
    sent: float
    low: float


class Brackets:
    """What the reads of one replica show about the writes. Each key has at most one write that was not seen yet."""

    def __init__(self) -> None:
        self._unseen: dict[int, _Unseen] = {}
        self._acked: dict[int, float] = {}
        self._found: dict[int, tuple[float, float, float | None]] = {}

    def sent(self, number: int, key: str, at: float) -> None:
        self._unseen[number] = _Unseen(key, at, at)

    def acked(self, number: int, at: float) -> None:
        self._acked[number] = at

    def failed(self, number: int) -> None:
        """Forget a write that was not acknowledged: it may or may not take effect."""
        self._unseen.pop(number, None)

    def read(self, sent: float, received: float, numbers: Mapping[str, int]) -> None:
        """Judge the writes that were sent before the read."""
        for number, (key, write_sent, _) in list(self._unseen.items()):
            if write_sent > sent:
                continue
            if numbers.get(key, 0) >= number:
                self._end(number, received)
            else:
                self._unseen[number] = _Unseen(key, write_sent, sent)

    def give_up(self, sent_before: float) -> None:
        """Stop looking for the writes sent before a moment: they are censored."""
        for number, unseen in list(self._unseen.items()):
            if unseen.sent < sent_before:
                self._end(number, None)

    def _end(self, number: int, high: float | None) -> None:
        _, sent, low = self._unseen.pop(number)
        self._found[number] = sent, low, high

    @property
    def keys(self) -> list[str]:
        """The keys that the replica still lacks a write of."""
        return [unseen.key for unseen in self._unseen.values()]

    @property
    def oldest_sent(self) -> float | None:
        return min((unseen.sent for unseen in self._unseen.values()), default=None)

    def all(self) -> list[Bracket]:
        """Return the brackets of all acknowledged writes, in their order; what is unseen is censored."""
        unseen = {number: (found.sent, found.low, None) for number, found in self._unseen.items()}
        found = self._found | unseen
        return [
            Bracket(number, sent, self._acked[number], low, high)
            for number, (sent, low, high) in sorted(found.items())
            if number in self._acked
        ]
