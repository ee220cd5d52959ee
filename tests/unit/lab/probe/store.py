"""A replicated store in simulated time, and a run of the instrument's steps in it."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lab.probe.instrument import Instrument, Limits, Run
from lab.probe.observer import Observer
from lab.probe.steps import Step, perform
from lab.probe.target import Description, Settings, Shown

Delay = Callable[[float], float]  # seconds until a write at this moment is visible


class Clock:
    """Seconds that only the simulation advances."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


class Visible(NamedTuple):
    key: str
    number: int
    at: float


class Node:
    """A node with a constant round trip, half of it in each direction. ``errors``: raised by operations, by turn."""

    def __init__(self, name: str, clock: Clock, round_trip: float = 0.001) -> None:
        self.name, self.clock, self.round_trip = name, clock, round_trip
        self.log: list[Visible] = []
        self.replicas: list[tuple[Node, Delay]] = []
        self.is_replica = False
        self.identity: str | None = "one"
        self.fails: Callable[[int], Exception | None] = lambda _: None
        self.operations = 0
        self.requests_per_key = 0  # none: one request for all keys
        self.statements: list[str] = []

    def _half_way(self) -> None:
        self.clock.at += self.round_trip / 2

    def _operation(self) -> None:
        self.operations += 1
        self._half_way()
        if (error := self.fails(self.operations)) is not None:
            raise error

    def settings(self) -> Settings:
        return Settings(identity=self.identity)

    def describe(self) -> Description:
        return Description(["WRITE", "READ"])

    def prepare(self) -> None:
        self.statements.append("prepare")

    def remove(self) -> None:
        self.statements.append("remove")

    def close(self) -> None:
        self.statements.append("close")

    def write(self, key: str, number: int) -> None:
        self._operation()
        for replica, delay in self.replicas:
            replica.log.append(Visible(key, number, self.clock.at + delay(self.clock.at)))
        self._half_way()

    def read(self, keys: Sequence[str]) -> Shown:
        self._operation()
        shown: dict[str, int] = {}
        for key, number, at in self.log:
            if at <= self.clock.at and key in keys:
                shown[key] = max(number, shown.get(key, 0))
        self._half_way()
        return Shown(shown, self.is_replica, self.requests_per_key * len(keys) or 1)

    def visible_at(self, number: int) -> float:
        return next(found.at for found in self.log if found.number == number)


def store(*delays: Delay, round_trip: float = 0.001) -> tuple[Node, list[Node]]:
    """Return a primary, and a replica for each delay."""
    clock = Clock()
    primary = Node("primary", clock, round_trip)
    replicas = [Node(f"replica{index}", clock, round_trip) for index in range(1, len(delays) + 1)]
    for replica, delay in zip(replicas, delays, strict=True):
        replica.is_replica = True
        primary.replicas.append((replica, delay))
    return primary, replicas


def simulate(
    primary: Node,
    replicas: Sequence[Node],
    limits: Limits,
    on_step: Callable[[Instrument], None] = lambda _: None,
    observer: Observer | None = None,
) -> Run:
    """Run the steps in turn, each when it is due; while one waits for a node, the others are late."""
    clock, order = primary.clock, itertools.count()
    instrument = Instrument(primary, replicas, limits, clock.now, observer or Observer())
    steps: list[tuple[float, int, Step]] = [(clock.at, next(order), one) for one in instrument.start()]
    waiting: list[Step] = []
    changes = 0
    while (steps or waiting) and instrument.shared.ended is None:
        if not steps:
            raise AssertionError("every step waits for a change")
        due, _, one = heapq.heappop(steps)
        clock.at = max(clock.at, due)
        again = perform(one, instrument.shared)
        if again == float("inf"):
            waiting.append(one)
        elif again is not None:
            heapq.heappush(steps, (again, next(order), one))
        if instrument.shared.changes != changes:
            changes = instrument.shared.changes
            for woken in waiting:
                heapq.heappush(steps, (clock.at, next(order), woken))
            waiting.clear()
        on_step(instrument)
    return instrument.result()


def ends_at(seconds: float) -> Callable[[Instrument], None]:
    """For ``on_step``: ends an endless run this many seconds after its start."""

    def on_step(instrument: Instrument) -> None:
        if instrument.now() - instrument.shared.started >= seconds:
            instrument.shared.end()

    return on_step
