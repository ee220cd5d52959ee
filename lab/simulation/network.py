"""What lies between nodes and log servers: messages that take time, come late, or are lost, in each direction alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from lab.simulation.scheduler import Scheduler

_LATENCY_SECONDS = (0.00005, 0.0002)
_SLOW_SHARE, _SLOW_SECONDS = 0.002, 0.05  # messages that take up to this long
_ARRIVES_LATE = 0.5  # the share of messages into a cut link that arrive once it is mended
_HELD_MAX = 10_000


class Network:
    """``cut`` and ``mend`` change one direction of one link, by the names of its ends."""

    def __init__(self, scheduler: Scheduler, random: Random) -> None:
        self.scheduler, self._random = scheduler, random
        self._cut: set[tuple[str, str]] = set()
        self._held: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self.slow: dict[str, float] = {}  # seconds that a message from or to an end takes longer

    def cut(self, one: str, other: str) -> None:
        self._cut.add((one, other))

    def mend(self, one: str, other: str) -> None:
        self._cut.discard((one, other))
        for deliver in self._held.pop((one, other), []):
            self.scheduler.after(self._seconds(one, other), deliver)

    def mend_all(self) -> None:
        for one, other in sorted(self._cut):
            self.mend(one, other)
        self.slow.clear()

    def send(self, one: str, other: str, deliver: Callable[[], None]) -> None:
        """Deliver a message after a while: if the link is cut, once it is mended or never."""
        if (one, other) not in self._cut:
            self.scheduler.after(self._seconds(one, other), deliver)
        elif self._random.random() < _ARRIVES_LATE:
            held = self._held.setdefault((one, other), [])
            if len(held) < _HELD_MAX:
                held.append(deliver)

    def _seconds(self, one: str, other: str) -> float:
        low, high = _LATENCY_SECONDS
        seconds = low + (high - low) * self._random.random()
        if self._random.random() < _SLOW_SHARE:
            seconds += self._random.random() * _SLOW_SECONDS
        return seconds + self.slow.get(one, 0) + self.slow.get(other, 0)


class Way:
    """One direction of a connection: what is sent arrives in order, and nothing after what is lost."""

    def __init__(self, network: Network, one: str, other: str) -> None:
        self._network, self._ends = network, (one, other)
        self._sent: deque[Callable[[], None]] = deque()

    def send(self, deliver: Callable[[], None]) -> None:
        self._sent.append(deliver)
        if len(self._sent) == 1:
            self._network.send(*self._ends, self._arrive)

    def _arrive(self) -> None:
        deliver = self._sent.popleft()
        if self._sent:
            self._network.send(*self._ends, self._arrive)
        deliver()
