"""One run: a lab that is disturbed for a while, healed, and looked at when it is quiet; again until the time is up."""

from __future__ import annotations

import gc
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from broker.delay.models import Order
from broker.position import Position
from lab.checking.history import Plan
from lab.report.spacetime import Event
from lab.simulation.faults import Faults
from lab.simulation.model import Violation
from lab.simulation.schedule import Fault, draw
from lab.simulation.workload import Clients
from lab.simulation.world import CHECK, Shape, World, random_of

_CALM_MAX = 0.6  # of a round that is shorter than the pace's
_COLLECTS_EVERY, _COLLECTS_ALL_EVERY = 30, 600  # looks, one a second: what is young, and everything
_CHANNELS_MAX, _TASKS_MAX = 400, 600  # of one node


class Round(NamedTuple):
    """When the faults of a round begin and end, when its clients stop, and when it ends: seconds of the run."""

    faults: float
    calm: float
    settles: float
    end: float


class Pace(NamedTuple):
    """``round_seconds``: each has a quiet point. ``start_seconds``: before its first fault. ``gap_seconds``: between
    two faults, on average. ``calm_seconds``: without faults, at its end. ``settle_share``: of the calm, without
    clients; what still waits after that waits for ever. ``ends_quiet``: the run ends at its last quiet point.
    """

    round_seconds: float = 300.0
    start_seconds: float = 5.0
    gap_seconds: float = 15.6
    calm_seconds: float = 60.0
    settle_share: float = 0.8
    ends_quiet: bool = False

    def rounds(self, seconds: float) -> list[Round]:
        """Return the rounds of a run."""
        count = max(1, round(seconds / self.round_seconds))
        each = seconds / count
        calm = min(self.calm_seconds, max(_CALM_MAX, self.calm_seconds / self.round_seconds) * each)
        ends = [each * (n + 1) for n in range(count)]
        return [Round(end - each + self.start_seconds, end - calm, end - self.settle_share * calm, end) for end in ends]


USUAL = Pace()
SHORT = Pace(32.0, 2.0, 1.5, 24.0, 0.9, ends_quiet=True)  # many of them find what does not take long


@dataclass(frozen=True)
class Failure:
    """What was violated, and when, in a run with these faults. ``told``: what each of the faults did; ``events``: what
    happened last.
    """

    seed: int
    seconds: float
    pace: Pace
    rule: str
    words: str
    at_seconds: float
    faults: list[Fault]
    told: list[Event]
    events: list[Event]


@dataclass
class Outcome:
    """A run. ``seconds``: as far as it came; ``met``: how often each kind of fault met each state of a reader."""

    seed: int
    seconds: float
    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    failure: Failure | None = None


def plan(seed: int, seconds: float, pace: Pace = USUAL) -> list[Fault]:
    """Return the faults of a run."""
    windows = [(each.faults, each.calm) for each in pace.rounds(seconds)]
    return draw(random_of(seed, "faults"), Shape.of(seed), windows, pace.gap_seconds)


def simulate(
    seed: int,
    seconds: float,
    faults: Sequence[Fault] | None = None,
    pace: Pace = USUAL,
    on_progress: Callable[[float], object] = lambda _: None,
) -> Outcome:
    """Run a lab; by default with the faults of ``plan``. ``on_progress`` receives the seconds that have passed."""
    with _collecting_on_request():
        return _simulate(
            Outcome(seed, seconds), plan(seed, seconds, pace) if faults is None else faults, pace, on_progress
        )


def _simulate(outcome: Outcome, faults: Sequence[Fault], pace: Pace, on_progress: Callable[[float], object]) -> Outcome:
    seed, seconds = outcome.seed, outcome.seconds
    with tempfile.TemporaryDirectory(prefix="lab-simulation-") as directory:
        world = World(seed, Path(directory))
        with world.installed():
            run = _Run(world, faults, outcome)
            try:
                for each in pace.rounds(seconds):
                    run.round(each, on_progress)
                if not pace.ends_quiet:
                    world.scheduler.run(seconds)
            except Violation as found:
                world.trace.add(CHECK, f"{found.rule}: {found.words}")
                at_seconds = world.scheduler.now_seconds()
                done, events = (outcome.faults, outcome.told), list(world.trace.events)
                outcome.failure = Failure(seed, seconds, pace, found.rule, found.words, at_seconds, *done, events)
            outcome.seconds = world.scheduler.now_seconds()
            outcome.steps = world.scheduler.switches
            outcome.counts = world.judge.counts
    return outcome


@contextmanager
def _collecting_on_request() -> Iterator[None]:
    """Collect the run's own garbage, at fixed times only: connections in it close, which others notice."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        gc.enable()


class _Run:
    def __init__(self, world: World, faults: Sequence[Fault], outcome: Outcome) -> None:
        self._world, self._scheduler, self._outcome = world, world.scheduler, outcome
        self._due = sorted(faults, key=lambda fault: fault.at_seconds, reverse=True)
        self._clients = Clients(self._scheduler, world.judge, world.clients, world.draw("clients"), world.primary.url)
        self._clients.identity = lambda name: f"{name} {world.nodes[name].losses}" if name in world.nodes else name
        self._faults = Faults(world)
        for node in world.nodes.values():
            node.start()
        self._scheduler.spawn(self._clients.start, world.clients)
        self._scheduler.spawn(self._faults.start, world.clients)
        self._looks = 0

    def round(self, times: Round, on_progress: Callable[[float], object]) -> None:
        while (now := self._scheduler.now_seconds()) < times.calm:
            until = min(now + 1, times.calm)
            while self._due and self._due[-1].at_seconds <= until:
                fault = self._due.pop()
                self._scheduler.run(fault.at_seconds)
                self._do(fault)
            self._scheduler.run(until)
            self._look()
            on_progress(until)
        self._faults.heal()
        self._scheduler.run(times.settles)
        self._settle(times.end)
        on_progress(times.end)

    def _do(self, fault: Fault) -> None:
        states = [_state(node) for node in self._world.replicas]
        if (event := self._faults.do(fault)) is not None:
            self._outcome.faults.append(fault)
            self._outcome.told.append(event)
            self._outcome.met.update((fault.kind, state) for state in states)

    def _look(self) -> None:
        """Look at what replicas and groups report, and at what must be within bounds."""
        self._looks += 1
        if self._looks % _COLLECTS_EVERY == 0:
            gc.collect(1 if self._looks % _COLLECTS_ALL_EVERY else 2)
        nodes = [node for node in self._world.nodes.values() if node.app is not None and node.process.is_alive]
        for node in nodes:
            if len(node.process.tasks) > _TASKS_MAX:
                raise Violation("everything has a bound", f"{node.name} has {len(node.process.tasks)} threads")
        for node in self._world.replicas:
            if node in nodes and not node.process.is_frozen:
                claimed = node.app.extensions["node"].acknowledged()
                if claimed is not None:
                    self._world.judge.claimed(node.name, claimed)
        self._world.judge.lags(self._world.master.lags())
        if len(self._world.log_connections.open) > _CHANNELS_MAX:
            raise Violation(
                "everything has a bound", f"{len(self._world.log_connections.open)} connections to the log are open"
            )

    def _settle(self, end: float) -> None:
        """Stop the clients, wait until everything is everywhere, and compare."""
        self._clients.is_paused = True
        self._clients.prove_writable()
        self._scheduler.run(end, self._is_settled)
        if not self._clients.is_writable:
            raise Violation("nothing waits for ever", "no write is acknowledged")
        if self._clients.in_progress:
            raise Violation("nothing waits for ever", f"{self._clients.in_progress} requests have no answer yet")
        if unsettled := self._unsettled():
            raise Violation("nothing waits for ever", "; ".join(unsettled))
        self._compare()
        world, judge = self._world, self._world.judge
        line = judge.lines[world.master.name]
        self._scheduler.run(min(end, self._scheduler.now_seconds() + 3))
        judge.check_named(line)
        faults = self._faults
        order: Order = "arrival" if faults.has_arrival_order else "log"
        n = None if faults.has_lost_stores else faults.replicas_max
        self._clients.check(Plan("eventual", order=order, n=n, w=1), line.lost_at)
        faults.has_lost_stores = False
        faults.has_arrival_order = any(judge.copies[node.name].order == "arrival" for node in world.replicas)
        faults.replicas_max = len(world.replicas)
        judge.may_lose = False
        judge.counts["quiet points"] += 1
        self._clients.is_paused = False

    def _is_settled(self) -> bool:
        return self._clients.is_writable and not self._clients.in_progress and not self._unsettled()

    def _unsettled(self) -> list[str]:
        """What has not settled yet."""
        world = self._world
        line = world.judge.lines[world.master.name]
        found = []
        for node in world.nodes.values():
            if node.is_away:
                continue
            if node.app is None:
                found.append(f"{node.name} has not started")
                continue
            if node is world.primary:
                if node.app.extensions["node"].parts.gate.state.position < line.head:
                    found.append(f"{node.name} is not at {line.head}")
                continue
            found += _behind(node, line.head)
            if not found and (pending := world.master.pending(node.name)):
                found.append(f"{pending} entries of {node.name} are pending")
        return found

    def _compare(self) -> None:
        """Every store has the same content."""
        world = self._world
        for node in world.replicas:
            if not node.is_away and node.app is not None:
                state = node.parts.store.digest()[0]  # the judge compares the content
                if state.position != world.judge.lines[world.master.name].head:
                    raise Violation("everything converges", f"{node.name} is at {state.position}")


def _behind(node: Any, head: Position) -> list[str]:
    replica = node.app.extensions["node"]
    parts, found = replica.parts, []
    if (position := parts.gate.state.position) != head:
        found.append(f"{node.name} is at {position}, not {head}")
    waiting, unacknowledged = replica.counts()
    if (acknowledged := replica.acknowledged()) != head:
        found.append(f"{node.name} has acknowledged everything up to {acknowledged}, not {head}")
    if waiting or unacknowledged:
        found.append(f"{node.name} has {waiting} waiting and {unacknowledged} unacknowledged entries")
    health = replica.health()
    found += [f"{node.name}: {name} {state}" for name, state in health.items() if state != "ok"]
    if replica.resyncing:
        found.append(f"{node.name} resyncs: {replica.resyncing}")
    return found


def _state(node: Any) -> str:
    """What a replica's reader does."""
    if not node.process.is_alive:
        return "away" if node.is_away else "down"
    if node.process.is_frozen:
        return "hanging"
    if node.app is None:
        return "starting"
    replica = node.app.extensions["node"]
    return "resyncing" if replica.resyncing else replica.phase.name.lower()
