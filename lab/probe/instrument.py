"""The instrument: one writer that raises a counter, and one reader per replica that looks for each write.

Writer and readers are steps that return when the next one is due, so that a test can run them in simulated time.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from statistics import median

from lab.probe.brackets import KEPT, Bracket, Brackets, Write
from lab.probe.observer import Observed, Observer
from lab.probe.reader import Reader
from lab.probe.steps import Course, Ended, Step, created, first_number, run_all
from lab.probe.target import NotNow, Settings, Target, TargetError

_ERRORS_SHARE_MAX = 0.1
_COMPARED = 20  # round trips at the start, and at the end
_SLOWER_SECONDS = 0.005  # a round trip that doubles within this is noise
_BACKLOG_MAX = 10  # late writes that an endless run still sends
_LATE_MAX = 2  # times the planned duration, after which late writes are not sent any more


@dataclass(frozen=True)
class Limits:
    """Load and duration of a run. A key is used again once every replica has shown it, so there are few of them.

    With infinite ``seconds``, a run goes on whatever fails, and keeps the newest measurements.
    """

    writes_per_second: float = 10.0
    seconds: float = 60.0
    writes_max: int = 600
    reads_per_second: float = 100.0
    give_up_seconds: float = 30.0

    @property
    def writes(self) -> int:
        return max(1, int(min(self.writes_max, self.writes_per_second * self.seconds)))

    @property
    def are_endless(self) -> bool:
        return math.isinf(self.seconds)

    @property
    def errors_share_max(self) -> float:
        return 1.0 if self.are_endless else _ERRORS_SHARE_MAX


@dataclass(frozen=True)
class Replica:
    """What was measured on a replica. ``was_replica``: its role at the first read, ``None`` if none succeeded."""

    name: str
    settings: Settings
    brackets: list[Bracket]
    round_trip_seconds: list[float]
    reads: int
    errors: int
    was_replica: bool | None


@dataclass(frozen=True)
class Run:
    """What was measured: the newest 10,000 of everything. ``late_seconds``: of each write.

    ``ended``: why the run ended early; ``not_removed``: why something is still in the store. Both are usually empty.
    """

    primary: str
    settings: Settings
    started: float
    writes: list[Write]
    replicas: list[Replica]
    round_trip_seconds: list[float]
    late_seconds: list[float]
    errors: int
    ended: str
    seconds: float
    not_removed: str = ""


class Shared(Course):
    """What writer and readers share."""

    def __init__(self, limits: Limits, now: Callable[[], float], replicas: Sequence[Brackets]) -> None:
        super().__init__(now)
        self.limits = limits
        self.next_number = first_number()
        self.writes = 0
        self.started = now()
        self.replicas = replicas
        self.all_written = False

    def free_key(self) -> str:
        """The lowest key that no replica still lacks."""
        used = {key for brackets in self.replicas for key in brackets.keys}
        return next(key for key in (f"k{index:04}" for index in range(1, len(used) + 2)) if key not in used)


class Writer:
    """Open loop: the moments of the writes are fixed in advance, and a late one is sent at once."""

    def __init__(self, target: Target, shared: Shared, operations: Observed, on_write: Callable[[Write], None]) -> None:
        self._target, self._shared, self.operations, self._on_write = target, shared, operations, on_write
        self._turn = 0
        self.writes: deque[Write] = deque(maxlen=KEPT)
        self.late_seconds: deque[float] = deque(maxlen=KEPT)

    def _due(self) -> float:
        return self._shared.started + self._turn / self._shared.limits.writes_per_second

    def _next_turn(self, now: float) -> None:
        """Leave out writes of an endless run that is late, which would send them all at once."""
        self._turn += 1
        if self._shared.limits.are_endless:
            current = math.floor((now - self._shared.started) * self._shared.limits.writes_per_second)
            self._turn = max(self._turn, current - _BACKLOG_MAX)

    def step(self) -> float | None:
        now, due = self._shared.now(), self._due()
        if now < due:
            return due
        self._require_time(now)
        self.late_seconds.append(now - due)
        self._next_turn(now)
        self._write()
        if self._shared.writes < self._shared.limits.writes:
            return self._due()
        with self._shared.changed:
            self._shared.all_written = True
            self._shared.notify()
        return None

    def _write(self) -> None:
        with self._shared.changed:
            number = self._shared.next_number
            self._shared.next_number += 1
            self._shared.writes += 1
            key, sent = self._shared.free_key(), self._shared.now()
            for brackets in self._shared.replicas:
                brackets.sent(number, key, sent)
            self._shared.notify()
        try:
            self._target.write(key, number)
        except NotNow as error:
            self._record(Write(number, key, sent, None))
            self.operations.failed(error)
        else:
            acked = self._shared.now()
            self._record(Write(number, key, sent, acked))
            self.operations.succeeded(acked - sent)
            self._require_no_slowdown()

    def _record(self, write: Write) -> None:
        with self._shared.changed:
            self.writes.append(write)
            for brackets in self._shared.replicas:
                if write.acked is None:
                    brackets.failed(write.number)
                else:
                    brackets.acked(write.number, write.acked)
        self._on_write(write)

    def _require_no_slowdown(self) -> None:
        took = self.operations.round_trip_seconds
        if len(took) < 2 * _COMPARED or self._shared.limits.are_endless:
            return
        before, now = median(islice(took, _COMPARED)), median(islice(reversed(took), _COMPARED))
        if now > 2 * before and now - before > _SLOWER_SECONDS:
            raise Ended(
                f"{self._target.name}: a write takes {now * 1000:.0f} ms, at the start {before * 1000:.0f} ms; "
                "the run must not slow down the store"
            )

    def _require_time(self, now: float) -> None:
        limits = self._shared.limits
        if now - self._shared.started > _LATE_MAX * limits.seconds:
            sent = f"{self._shared.writes} of {limits.writes} writes in {now - self._shared.started:.0f} s"
            raise Ended(f"{self._target.name}: only {sent}; choose a lower --rate")


def settings_of(primary: Target, replicas: Sequence[Target]) -> list[Settings]:
    """Return the settings of all nodes. Raises ``TargetError`` if they are not nodes of one store."""
    own, *others = (node.settings() for node in (primary, *replicas))
    for node, settings in zip(replicas, others, strict=True):
        if None not in {own.identity, settings.identity} and settings.identity != own.identity:
            raise TargetError(f"{node.name} is not a replica of {primary.name}: it belongs to another store")
    return [own, *others]


@dataclass
class Instrument:
    """A run: its steps, and its result at any time."""

    primary: Target
    replicas: Sequence[Target]
    limits: Limits
    now: Callable[[], float] = time.monotonic
    observer: Observer = field(default_factory=Observer)
    settings: list[Settings] = field(init=False)

    def __post_init__(self) -> None:
        """Ask every node for its settings. Raises ``TargetError``, also if they are not nodes of one store."""
        self.settings = settings_of(self.primary, self.replicas)

    def start(self) -> Sequence[Step]:
        """Set the start of the run to now, and return its steps: the writer's and the readers'."""
        self._brackets = [Brackets(partial(self.observer.found, index)) for index in range(len(self.replicas))]
        self.shared = Shared(self.limits, self.now, self._brackets)
        own, *others = self.settings
        self.writer = Writer(
            self.primary, self.shared, self._operations(self.primary, "writes", own), self.observer.wrote
        )
        self.readers = [
            Reader(node, self.shared, brackets, self._operations(node, "reads", settings))
            for node, brackets, settings in zip(self.replicas, self._brackets, others, strict=True)
        ]
        self.observer.started(self)
        return [self.writer, *self.readers]

    def _operations(self, node: Target, kind: str, settings: Settings) -> Observed:
        return Observed(node, kind, settings.identity, self.limits.errors_share_max, self.observer)

    def result(self) -> Run:
        own, *others = self.settings
        parts = zip(self.replicas, others, self._brackets, self.readers, strict=True)
        return Run(
            primary=self.primary.name,
            settings=own,
            started=self.shared.started,
            writes=[*self.writer.writes],
            replicas=[
                Replica(
                    name=node.name,
                    settings=settings,
                    brackets=brackets.all(),
                    round_trip_seconds=[*reader.operations.round_trip_seconds],
                    reads=reader.operations.count,
                    errors=reader.operations.errors,
                    was_replica=reader.operations.was_replica,
                )
                for node, settings, brackets, reader in parts
            ],
            round_trip_seconds=[*self.writer.operations.round_trip_seconds],
            late_seconds=[*self.writer.late_seconds],
            errors=self.writer.operations.errors,
            ended=self.shared.ended or "",
            seconds=self.now() - self.shared.started,
        )


def run(
    primary: Target,
    replicas: Sequence[Target],
    limits: Limits,
    *,
    stop: threading.Event | None = None,
    on_step: Callable[[int], None] = lambda _: None,
    observer: Observer | None = None,
) -> Run:
    """Measure until every write was seen or given up, or ``stop`` is set. ``on_step`` gets the writes so far.

    What is created in the store is removed at the end; the connections stay open. Raises ``TargetError`` if nothing was
    created.
    """
    instrument = Instrument(primary, replicas, limits, observer=observer or Observer())
    ended = stop or threading.Event()

    def measure() -> None:
        run_all(instrument.start(), instrument.shared, ended, lambda: on_step(instrument.shared.writes))

    not_removed = created(primary, measure)
    return replace(instrument.result(), not_removed=not_removed)
