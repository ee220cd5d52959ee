"""The moment a write became visible on a replica: for certain after one moment and at or before another."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

KEPT = 10_000  # newest brackets, of a run that can be without an end


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


class Behind(NamedTuple):
    """How far a replica is behind: the acknowledged writes that no read has shown yet.

    ``since``: the acknowledgement of the oldest of them. ``newest``: the newest write that a read has shown.
    """

    writes: int
    since: float | None
    newest: int


class Brackets:
    """What the reads of one replica show about the writes. Each key has at most one write that was not seen yet.

    ``on_found`` is called with each bracket when its write is acknowledged, and seen or given up.
    """

    def __init__(self, on_found: Callable[[Bracket], None] = lambda _: None) -> None:
        self._on_found = on_found
        self._unseen: dict[int, _Unseen] = {}
        self._acked: dict[int, float] = {}  # of the unseen ones
        self._ended: dict[int, tuple[float, float, float | None]] = {}  # of the ones that are not acknowledged
        self._found: deque[Bracket] = deque(maxlen=KEPT)
        self._newest = 0
        self._given_up = 0  # since a write was seen
        self._given_up_since: float | None = None  # acknowledgement of the first of them

    def sent(self, number: int, key: str, at: float) -> None:
        self._unseen[number] = _Unseen(key, at, at)

    def acked(self, number: int, at: float) -> None:
        if number in self._unseen:
            self._acked[number] = at
        elif number in self._ended:
            self._add(number, at, *self._ended.pop(number))

    def failed(self, number: int) -> None:
        """Forget a write that was not acknowledged: it may or may not take effect."""
        self._unseen.pop(number, None)
        self._ended.pop(number, None)

    def read(self, sent: float, received: float, numbers: Mapping[str, int]) -> None:
        """Judge the writes that were sent before the read."""
        for number, (key, write_sent, _) in list(self._unseen.items()):
            if write_sent > sent:
                continue
            if numbers.get(key, 0) >= number:
                self._newest = max(self._newest, number)
                self._given_up, self._given_up_since = 0, None  # they are older
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
        if (acked := self._acked.pop(number, None)) is None:
            self._ended[number] = sent, low, high
        else:
            self._add(number, acked, sent, low, high)

    def _add(self, number: int, acked: float, sent: float, low: float, high: float | None) -> None:
        found = Bracket(number, sent, acked, low, high)
        self._found.append(found)
        if high is None:
            self._given_up += 1
            self._given_up_since = acked if self._given_up_since is None else self._given_up_since
        self._on_found(found)

    @property
    def keys(self) -> list[str]:
        """The keys that the replica still lacks a write of."""
        return [unseen.key for unseen in self._unseen.values()]

    @property
    def oldest_sent(self) -> float | None:
        return min((unseen.sent for unseen in self._unseen.values()), default=None)

    @property
    def behind(self) -> Behind:
        """A write that was given up counts until a later one is seen."""
        oldest = min(self._acked.values(), default=None)
        since = oldest if self._given_up_since is None else self._given_up_since
        return Behind(self._given_up + len(self._acked), since, self._newest)

    def all(self) -> list[Bracket]:
        """Return the newest brackets of acknowledged writes, in their order; what is unseen is censored."""
        unseen = (
            Bracket(number, found.sent, self._acked[number], found.low, None)
            for number, found in self._unseen.items()
            if number in self._acked
        )
        return sorted((*self._found, *unseen))
