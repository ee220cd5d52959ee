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
from typing import Protocol

from lab.probe.brackets import KEPT, Behind, Bracket, Brackets, Write
from lab.probe.target import NotNow, Settings, Target, TargetError

_GAP_SECONDS_MIN = 0.001
_GAP_SHARE = 0.05  # of the age of the oldest unseen write: short lags get narrow brackets, long ones few reads
_GAP_SECONDS_MAX = 5.0
_ERRORS_SHARE_MAX = 0.1
_ERRORS_OF = 20  # operations, before their share of errors means anything
_COMPARED = 20  # round trips at the start, and at the end
_SLOWER_SECONDS = 0.005  # a round trip that doubles within this is noise
_SHOW_SECONDS = 0.1
_UNKNOWN_SECONDS = 10.0  # without a successful read, after which it is not known how far a replica is behind
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


class Step(Protocol):
    def step(self) -> float | None:
        """Do what is due. Return the moment of the next step, infinity for the next change, or ``None`` at the end."""


class Observer:
    """Is called by the threads of a run with what happens."""

    def started(self, instrument: "Instrument") -> None: ...

    def wrote(self, write: Write) -> None: ...

    def found(self, replica: int, bracket: Bracket) -> None: ...

    def failed(self, node: Target, error: NotNow) -> None: ...

    def succeeded(self, node: Target) -> None: ...


class _Ended(Exception):
    """Raised with the sentence that says why the run ends."""


class Shared:
    """What writer and readers share. ``changed`` guards it, and is notified at every write and at the end.

    ``changes`` counts the notifications, so that a thread does not wait for one that it has just missed.
    """

    def __init__(
        self, limits: Limits, now: Callable[[], float], replicas: Sequence[Brackets], observer: Observer
    ) -> None:
        self.limits = limits
        self.now = now
        self.observer = observer
        self.next_number = first_number()
        self.writes = 0
        self.started = now()
        self.replicas = replicas
        self.changed = threading.Condition()
        self.changes = 0
        self.ended: str | None = None  # the sentence, or empty; None while the run goes on
        self.all_written = False
        self.failure: Exception | None = None

    def notify(self) -> None:
        with self.changed:
            self.changes += 1
            self.changed.notify_all()

    def end(self, sentence: str = "") -> None:
        with self.changed:
            if self.ended is None:
                self.ended = sentence
            self.notify()

    def free_key(self) -> str:
        """The lowest key that no replica still lacks."""
        used = {key for brackets in self.replicas for key in brackets.keys}
        return next(key for key in (f"k{index:04}" for index in range(1, len(used) + 2)) if key not in used)


class _Operations:
    """Counts a node's operations, and ends the run when too many failed, or when the node was replaced."""

    def __init__(self, target: Target, identity: str | None, kind: str, shared: Shared) -> None:
        self._target, self._identity, self._kind, self._shared = target, identity, kind, shared
        self._failed = False  # since its identity was checked
        self.round_trip_seconds: deque[float] = deque(maxlen=KEPT)
        self.count = self.errors = 0

    def succeeded(self, seconds: float) -> None:
        self.count += 1
        self.round_trip_seconds.append(seconds)
        if self._failed:
            self._require_same_store()
        self._shared.observer.succeeded(self._target)

    def failed(self, error: NotNow) -> None:
        self.count += 1
        self.errors += 1
        self._failed = True
        self._shared.observer.failed(self._target, error)
        is_over = self.count >= _ERRORS_OF and self.errors > _ERRORS_SHARE_MAX * self.count
        if is_over and not self._shared.limits.are_endless:
            failed = f"{self.errors} of {self.count} {self._kind} failed"
            raise _Ended(f"{self._target.name}: {failed}, the last one with: {error}")

    def _require_same_store(self) -> None:
        try:
            found = self._target.settings().identity
        except (NotNow, TargetError):
            return  # checked again after the next operation
        self._failed = False
        if None not in {found, self._identity} and found != self._identity:
            raise _Ended(f"{self._target.name} belongs to another store since its connection was lost")


def first_number() -> int:
    """Return a number above those of every earlier run, so that what one has left behind is not taken for a write."""
    return time.time_ns() // 1_000_000


class Writer:
    """Open loop: the moments of the writes are fixed in advance, and a late one is sent at once."""

    def __init__(self, target: Target, identity: str | None, shared: Shared) -> None:
        self._target, self._shared = target, shared
        self._turn = 0
        self.operations = _Operations(target, identity, "writes", shared)
        self.writes: deque[Write] = deque(maxlen=KEPT)
        self.late_seconds: deque[float] = deque(maxlen=KEPT)

    def _due(self) -> float:
        return self._shared.started + self._turn / self._shared.limits.writes_per_second

    def _next_turn(self, now: float) -> None:
        """Leave out writes in an endless run that is late, which would send them all at once."""
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
        self._shared.observer.wrote(write)

    def _require_no_slowdown(self) -> None:
        took = self.operations.round_trip_seconds
        if len(took) < 2 * _COMPARED or self._shared.limits.are_endless:
            return
        before, now = median(islice(took, _COMPARED)), median(islice(reversed(took), _COMPARED))
        if now > 2 * before and now - before > _SLOWER_SECONDS:
            raise _Ended(
                f"{self._target.name}: a write takes {now * 1000:.0f} ms, at the start {before * 1000:.0f} ms; "
                "the run must not slow down the store"
            )

    def _require_time(self, now: float) -> None:
        limits = self._shared.limits
        if now - self._shared.started > _LATE_MAX * limits.seconds:
            sent = f"{self._shared.writes} of {limits.writes} writes in {now - self._shared.started:.0f} s"
            raise _Ended(f"{self._target.name}: only {sent}; choose a lower --rate")


class _Budget:
    """Tokens for reads: an average rate, of which one second can be saved up."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second, self._tokens, self._at = per_second, per_second, now

    def ready(self) -> float:
        """Return the moment of the next token."""
        return self._at + max(0.0, 1 - self._tokens) / self._per_second

    def take(self, now: float) -> None:
        self._tokens = min(self._per_second, self._tokens + (now - self._at) * self._per_second) - 1
        self._at = now


class Reader:
    """Reads while a write is unseen, the more often the younger it is."""

    def __init__(self, target: Target, identity: str | None, shared: Shared, brackets: Brackets) -> None:
        self._target, self._shared, self._brackets = target, shared, brackets
        self._budget = _Budget(shared.limits.reads_per_second, shared.started)
        self._last_sent = -math.inf
        self._last_received: float | None = None
        self.was_replica: bool | None = None
        self.operations = _Operations(target, identity, "reads", shared)

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
        gap = min(_GAP_SECONDS_MAX, max(_GAP_SECONDS_MIN, _GAP_SHARE * (self._last_sent - oldest)))
        return max(max(self._last_sent, oldest) + gap, self._budget.ready())

    def _read(self, keys: Sequence[str]) -> None:
        sent = self._last_sent = self._shared.now()
        self._budget.take(sent)
        try:
            shown = self._target.read(keys)
        except NotNow as error:
            self.operations.failed(error)
            return
        received = self._shared.now()
        self.operations.succeeded(received - sent)
        self._require_role(is_replica=shown.is_replica)
        if max(shown.numbers.values(), default=0) >= self._shared.next_number:
            raise _Ended(f"{self._target.name} shows another probe's writes; only one can run on a store")
        with self._shared.changed:
            self._last_received = received
            self._brackets.read(sent, received, shown.numbers)

    def behind(self) -> Behind | None:
        """Return how far the replica is behind; ``None`` if no read succeeds, or none has yet."""
        with self._shared.changed:
            found, received = self._brackets.behind, self._last_received
            if received is None:
                return None
            waiting_since = received if found.since is None else max(received, found.since)
            is_known = found.since is None or self._shared.now() - waiting_since <= _UNKNOWN_SECONDS
            return found if is_known else None

    def _require_role(self, *, is_replica: bool) -> None:
        if self.was_replica is None:
            self.was_replica = is_replica
        if is_replica != self.was_replica:
            role = "replica" if is_replica else "primary"
            raise _Ended(f"{self._target.name} became a {role} during the run")


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
        self.settings = [node.settings() for node in (self.primary, *self.replicas)]
        own = self.settings[0].identity
        for node, settings in zip(self.replicas, self.settings[1:], strict=True):
            if None not in {own, settings.identity} and settings.identity != own:
                raise TargetError(f"{node.name} is not a replica of {self.primary.name}: it belongs to another store")

    def start(self) -> Sequence[Step]:
        """Set the start of the run to now, and return its steps: the writer's and the readers'."""
        identity, *identities = (settings.identity for settings in self.settings)
        self._brackets = [Brackets(partial(self.observer.found, index)) for index in range(len(self.replicas))]
        self.shared = Shared(self.limits, self.now, self._brackets, self.observer)
        self.writer = Writer(self.primary, identity, self.shared)
        parts = zip(self.replicas, identities, self._brackets, strict=True)
        self.readers = [Reader(node, own, self.shared, brackets) for node, own, brackets in parts]
        self.observer.started(self)
        return [self.writer, *self.readers]

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
                    was_replica=reader.was_replica,
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
    primary.prepare()
    not_removed = ""
    try:
        _measure(instrument, stop or threading.Event(), on_step)
    finally:
        try:
            primary.remove()
        except (TargetError, NotNow) as error:
            not_removed = str(error)
    return replace(instrument.result(), not_removed=not_removed)


def _measure(instrument: Instrument, stop: threading.Event, on_step: Callable[[int], None]) -> None:
    steps = instrument.start()
    shared = instrument.shared
    threads = [threading.Thread(target=_repeat, args=(one, shared), daemon=True) for one in steps]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_SHOW_SECONDS)
                on_step(instrument.shared.writes)
                if stop.is_set():
                    shared.end("it was interrupted")
    finally:
        shared.end()
        for thread in threads:  # each operation has a timeout
            thread.join()
    if shared.failure is not None:
        raise shared.failure


def _repeat(one: Step, shared: Shared) -> None:
    while shared.ended is None:
        changes = shared.changes
        if (due := perform(one, shared)) is None:
            return
        with shared.changed:
            wait_seconds = due - shared.now()
            if wait_seconds > 0 and shared.changes == changes:
                shared.changed.wait(None if math.isinf(due) else wait_seconds)


def perform(one: Step, shared: Shared) -> float | None:
    """Perform one step; an error of the node ends the run."""
    try:
        return one.step()
    except (_Ended, TargetError) as error:
        shared.end(str(error))
    except Exception as error:  # noqa: BLE001 - run raises it
        shared.failure = error
        shared.end()
    return None
