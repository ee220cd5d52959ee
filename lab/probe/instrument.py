"""The instrument: one writer that raises a counter, and one reader per replica that looks for each write.

Writer and readers are steps that return when the next one is due, so that a test can run them in simulated time.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from lab.probe.brackets import Bracket, Brackets, Write
from lab.probe.steps import Course, Ended, Operations, Step, created, first_number, run_all
from lab.probe.target import NotNow, Settings, Target, TargetError

_GAP_SECONDS_MIN = 0.001
_GAP_SHARE = 0.05  # of the age of the oldest unseen write: short lags get narrow brackets, long ones few reads
_COMPARED = 20  # round trips at the start, and at the end
_SLOWER_SECONDS = 0.005  # a round trip that doubles within this is noise
_LATE_MAX = 2  # times the planned duration, after which late writes are not sent any more


@dataclass(frozen=True)
class Limits:
    """Load and duration of a run. A key is used again once every replica has shown it, so there are few of them."""

    writes_per_second: float = 10.0
    seconds: float = 60.0
    writes_max: int = 600
    reads_per_second: float = 100.0
    give_up_seconds: float = 30.0

    @property
    def writes(self) -> int:
        return max(1, min(self.writes_max, math.floor(self.writes_per_second * self.seconds)))


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
    """What was measured. ``late_seconds``: of each write.

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
        self.first = first_number()
        self.started = now()
        self.replicas = replicas
        self.all_written = False

    def free_key(self) -> str:
        """The lowest key that no replica still lacks."""
        used = {key for brackets in self.replicas for key in brackets.keys}
        return next(key for key in (f"k{index:04}" for index in range(1, len(used) + 2)) if key not in used)


class Writer:
    """Open loop: the moments of the writes are fixed in advance, and a late one is sent at once."""

    def __init__(self, target: Target, shared: Shared) -> None:
        self._target, self._shared = target, shared
        self.operations = Operations(target.name, "writes")
        self.writes: list[Write] = []
        self.late_seconds: list[float] = []

    def _due(self) -> float:
        return self._shared.started + len(self.writes) / self._shared.limits.writes_per_second

    def step(self) -> float | None:
        now, due = self._shared.now(), self._due()
        if now < due:
            return due
        self._require_time(now)
        self.late_seconds.append(now - due)
        self._write(self._shared.first + len(self.writes))
        if len(self.writes) < self._shared.limits.writes:
            return self._due()
        with self._shared.changed:
            self._shared.all_written = True
            self._shared.notify()
        return None

    def _write(self, number: int) -> None:
        with self._shared.changed:
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
            self.operations.round_trip_seconds.append(acked - sent)
            self._require_no_slowdown()

    def _record(self, write: Write) -> None:
        with self._shared.changed:
            self.writes.append(write)
            for brackets in self._shared.replicas:
                if write.acked is None:
                    brackets.failed(write.number)
                else:
                    brackets.acked(write.number, write.acked)

    def _require_no_slowdown(self) -> None:
        took = self.operations.round_trip_seconds
        if len(took) < 2 * _COMPARED:
            return
        before, now = median(took[:_COMPARED]), median(took[-_COMPARED:])
        if now > 2 * before and now - before > _SLOWER_SECONDS:
            raise Ended(
                f"{self._target.name}: a write takes {now * 1000:.0f} ms, at the start {before * 1000:.0f} ms; "
                "the run must not slow down the store"
            )

    def _require_time(self, now: float) -> None:
        limits = self._shared.limits
        if now - self._shared.started > _LATE_MAX * limits.seconds:
            sent = f"{len(self.writes)} of {limits.writes} writes in {now - self._shared.started:.0f} s"
            raise Ended(f"{self._target.name}: only {sent}; choose a lower --rate")


class _Budget:
    """Tokens for requests that read: an average rate, of which one second can be saved up."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second, self._tokens, self._at = per_second, per_second, now

    def ready(self) -> float:
        """Return the moment of the next token."""
        return self._at + max(0.0, 1 - self._tokens) / self._per_second

    def take(self, now: float, count: int) -> None:
        self._tokens = min(self._per_second, self._tokens + (now - self._at) * self._per_second) - count
        self._at = now


class Reader:
    """Reads while a write is unseen, the more often the younger it is."""

    def __init__(self, target: Target, shared: Shared, brackets: Brackets) -> None:
        self._target, self._shared, self._brackets = target, shared, brackets
        self._budget = _Budget(shared.limits.reads_per_second, shared.started)
        self._last_sent = -math.inf
        self.operations = Operations(target.name, "reads")

    def step(self) -> float | None:
        now = self._shared.now()
        with self._shared.changed:
            self._brackets.give_up(now - self._shared.limits.give_up_seconds)
            due, keys = self._due(), self._brackets.keys
            if due is None or now < due:
                return due
        self._read(keys)
        with self._shared.changed:
            return self._due()

    def _due(self) -> float | None:
        oldest = self._brackets.oldest_sent
        if oldest is None:
            return None if self._shared.all_written else math.inf
        gap = max(_GAP_SECONDS_MIN, _GAP_SHARE * (self._last_sent - oldest))
        return max(max(self._last_sent, oldest) + gap, self._budget.ready())

    def _read(self, keys: Sequence[str]) -> None:
        sent = self._last_sent = self._shared.now()
        try:
            shown = self._target.read(keys)
        except NotNow as error:
            self._budget.take(sent, 1)
            self.operations.failed(error)
            return
        received = self._shared.now()
        self._budget.take(sent, shown.requests)
        self.operations.round_trip_seconds.append(received - sent)
        self.operations.require_role(is_replica=shown.is_replica)
        if max(shown.numbers.values(), default=0) >= self._shared.first + self._shared.limits.writes:
            raise Ended(f"{self._target.name} shows another probe's writes; only one can run on a store")
        with self._shared.changed:
            self._brackets.read(sent, received, shown.numbers)


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
    settings: list[Settings] = field(init=False)

    def __post_init__(self) -> None:
        """Ask every node for its settings. Raises ``TargetError``, also if they are not nodes of one store."""
        self.settings = settings_of(self.primary, self.replicas)

    def start(self) -> Sequence[Step]:
        """Set the start of the run to now, and return its steps: the writer's and the readers'."""
        self._brackets = [Brackets() for _ in self.replicas]
        self.shared = Shared(self.limits, self.now, self._brackets)
        self.writer = Writer(self.primary, self.shared)
        pairs = zip(self.replicas, self._brackets, strict=True)
        self._readers = [Reader(node, self.shared, brackets) for node, brackets in pairs]
        return [self.writer, *self._readers]

    def result(self) -> Run:
        own, *others = self.settings
        parts = zip(self.replicas, others, self._brackets, self._readers, strict=True)
        return Run(
            primary=self.primary.name,
            settings=own,
            started=self.shared.started,
            writes=self.writer.writes,
            replicas=[
                Replica(
                    name=node.name,
                    settings=settings,
                    brackets=brackets.all(),
                    round_trip_seconds=reader.operations.round_trip_seconds,
                    reads=reader.operations.count,
                    errors=reader.operations.errors,
                    was_replica=reader.operations.was_replica,
                )
                for node, settings, brackets, reader in parts
            ],
            round_trip_seconds=self.writer.operations.round_trip_seconds,
            late_seconds=self.writer.late_seconds,
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
) -> Run:
    """Measure until every write was seen or given up, or ``stop`` is set. ``on_step`` gets the writes so far.

    What is created in the store is removed at the end; the connections stay open. Raises ``TargetError`` if nothing was
    created.
    """
    instrument = Instrument(primary, replicas, limits)
    ended = stop or threading.Event()

    def measure() -> None:
        run_all(instrument.start(), instrument.shared, ended, lambda: on_step(len(instrument.writer.writes)))

    not_removed = created(primary, measure)
    return replace(instrument.result(), not_removed=not_removed)
