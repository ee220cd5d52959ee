"""Performing experiments: within the bound of each kind, run in virtual time, and while the log server is away."""

import heapq
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import Phase, example, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.delay.models import Fixed
from broker.errors import LogUnreachable
from broker.registry import Settings
from nodes.experiments.spec import (
    REQUESTS_AT_ONCE,
    SECONDS_MAX,
    Experiment,
    ExperimentBody,
    Quorum,
    Spec,
    Staleness,
    Windows,
)
from nodes.http.level import LEVELS
from nodes.http.peers import Ask, Reply
from nodes.worker import quorum
from nodes.worker.open_loop import OpenLoop, Task
from nodes.worker.perform import Performance, measure_all
from nodes.worker.run import Run, Target
from tests.support.experiments import experiment

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")
ANSWER_SECONDS = 0.05


class VirtualTime:
    """A clock that waiting advances. It goes back when another thread runs."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.ended_at = 0.0

    def now(self) -> float:
        return self.seconds

    def now_us(self) -> int:
        return round(self.seconds * 1e6)

    def measure(self) -> None:
        """Do nothing: the log server has the same clock."""

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.ended_at = max(self.ended_at, self.seconds)


class VirtualLoop(OpenLoop):
    """The open loop, with simulated threads: each task starts at its time, or when a thread is free."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(REQUESTS_AT_ONCE, time.now)
        self._time = time
        self._tasks: list[tuple[float, int, Task]] = []
        self._free_at = [time.now()] * REQUESTS_AT_ONCE

    def at(self, due: float, task: Task) -> None:
        heapq.heappush(self._tasks, (due, next(self._order), task))

    def run(self) -> None:
        while self._tasks:
            due, _, task = heapq.heappop(self._tasks)
            self._time.seconds = max(due, heapq.heappop(self._free_at))
            task()
            heapq.heappush(self._free_at, self._time.seconds)
        self._time.seconds = max(self._free_at)


class SlowestLab(Target):
    """Nodes that respond as late as possible: requests that can wait do so until their time is up."""

    def __init__(self, time: VirtualTime, replicas: int, delay_ms: float) -> None:
        self.primary_url, self.client_url, self.peers = "http://primary", "http://client", cast("Any", self)
        self._time = time
        self._version = 0
        self._settings = {f"r{number}": Settings(Fixed(delay_ms), Fixed(0), "log", 0) for number in range(replicas)}

    def settings(self) -> dict[str, Settings]:
        return self._settings

    def replicas(self) -> dict[str, str]:
        return {name: f"http://{name}" for name in self._settings}

    def head(self) -> tuple[int, int]:
        return 1, self._version

    def attempt(self, ask: Ask) -> Reply:
        if ask.method == "POST":
            self._version += 1
        written_at = EPOCH + timedelta(microseconds=self._time.now_us())
        (timeout_ms,) = parse_qs(urlsplit(ask.url).query).get("timeout_ms", ["0"])
        self._time.wait(max(ANSWER_SECONDS, int(timeout_ms) / 1000))
        body = {
            "version": self._version, "write_timestamp": written_at.isoformat(), "token": "t", "position": "1-1",
            "consistency_time_ms": None, "replicas": {}, "waited_ms": float(timeout_ms), "stale": False,
            "read_at": written_at.isoformat(), "read_delay_ms": 0.0, "acks_reached": 20,
            "asked": {"r0": {"read_at": written_at.isoformat(), "read_delay_ms": 0.0}}, "cursor": "", "acknowledged": []
        }  # fmt: skip
        return Reply(200, body, self._time.now())


class VirtualRun(Run):
    def __init__(self, time: VirtualTime, target: SlowestLab) -> None:
        super().__init__(target, cast("Any", time), lambda *_: None, time.now)
        self._time = time

    def loop(self) -> OpenLoop:
        return VirtualLoop(self._time)


def taken(spec: Spec, replicas: int, delay_ms: float) -> tuple[float, dict[str, Any]]:
    """The seconds that an experiment takes if every response is as late as possible, and its result."""
    time = VirtualTime()
    run = VirtualRun(time, SlowestLab(time, replicas, delay_ms))
    found = measure_all(spec, run)
    return time.ended_at, found


SEEDS = st.integers(0, 2**53 - 1)
RATES = st.floats(0.1, 200)
TIMEOUTS = st.integers(1, 600_000)
KINDS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("windows"), "seed": SEEDS, "writes": st.integers(1, 1500), "rate": RATES,
                           "timeout_ms": TIMEOUTS}),
    st.fixed_dictionaries({"kind": st.just("levels"), "seed": SEEDS, "reads": st.integers(1, 600), "rate": RATES,
                           "timeout_ms": TIMEOUTS,
                           "levels": st.lists(st.sampled_from(LEVELS), min_size=1, unique=True)}),
    st.fixed_dictionaries({"kind": st.just("staleness"), "seed": SEEDS, "reads": st.integers(100, 1500), "rate": RATES,
                           "reads_per_second": st.floats(1, 1000), "steps": st.integers(2, 200)},
                          optional={"horizon_ms": st.floats(1, 600_000)}),
    st.fixed_dictionaries({"kind": st.just("quorum"), "seed": SEEDS, "reads": st.integers(100, 1500), "rate": RATES,
                           "reads_per_second": st.floats(1, 1000), "steps": st.integers(2, 200),
                           "timeout_ms": TIMEOUTS},
                          optional={"horizon_ms": st.floats(1, 600_000)})
)  # fmt: skip

# A failing example is not made smaller: each is a whole experiment, and hypothesis would try for five minutes.
PHASES = [Phase.explicit, Phase.generate]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Valid specifications of any kind."""
    found: dict[str, Any] = draw(KINDS)
    if draw(st.booleans()):
        seeds = draw(st.lists(SEEDS, min_size=2, max_size=4))
        found = {"kind": "sweep", "parameter": "seed", "values": seeds, "experiment": found}
    try:
        return ExperimentBody.model_validate(found).root
    except ValidationError:
        reject()


@pytest.fixture(scope="module", autouse=True)
def _quick_simulations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quorum, "TRIALS", 1000)
        yield


WARM_UPS = Quorum(kind="quorum", reads=100, reads_per_second=900.0, rate=200.0, steps=167, timeout_ms=13_626)


@given(specs(), st.integers(1, 3), st.floats(0, 600_000))
@example(WARM_UPS, 1, 450_000.0)
@settings(max_examples=100, deadline=None, phases=PHASES)
def test_no_experiment_takes_longer_than_its_bound(spec: Spec, replicas: int, delay_ms: float) -> None:
    seconds, result = taken(spec, replicas, delay_ms)
    assert seconds <= spec.seconds <= SECONDS_MAX
    if isinstance(spec, Staleness | Quorum):
        assert result["reads"] == spec.reads


STALENESS = {"kind": "staleness", "reads": 100, "reads_per_second": 1000}


@pytest.mark.parametrize(
    "found",
    [
        {"kind": "sweep", "parameter": "seed", "values": list(range(20)),
         "experiment": {**STALENESS, "horizon_ms": 600_000}},
        {**STALENESS, "reads": 200_000, "rate": 0.1, "steps": 2},
        {"kind": "windows", "writes": 20_000, "rate": 200, "timeout_ms": 600_000},
        {"kind": "levels", "reads": 10_000, "rate": 200, "timeout_ms": 120_000},
        {"kind": "sweep", "parameter": "timeout_ms", "values": [1, *[600_000] * 6],
         "experiment": {"kind": "windows", "writes": 1}}
    ],
    ids=["horizon", "few reads a write", "waits", "waits at each level", "waits that are swept"]
)  # fmt: skip
def test_an_experiment_that_could_take_more_than_an_hour_is_rejected(found: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="at most 3600 s are allowed"):
        ExperimentBody.model_validate(found)


@pytest.mark.parametrize("kind", ["windows", "staleness", "levels"])
def test_an_experiment_without_parameters_is_accepted_and_a_sweep_of_ten_is(kind: str) -> None:
    values = list(range(10))
    swept = {"kind": "sweep", "parameter": "seed", "values": values, "experiment": {"kind": kind}}
    assert ExperimentBody.model_validate(swept).root.seconds <= SECONDS_MAX


class PatientQueue:
    """A queue that ends no experiment early."""

    def __init__(self) -> None:
        self.reported: list[Experiment] = []

    def report(self, experiment: Experiment) -> None:
        self.reported.append(dict(experiment))  # type: ignore[arg-type]

    def wait_for_stop(self, _name: str, timeout_seconds: float) -> None:
        assert timeout_seconds > 0

    def hold(self, settings: dict[str, Any]) -> None:
        assert settings == {}

    def held(self) -> dict[str, Any]:
        return {}


def test_an_experiment_that_exceeds_its_bound_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Windows, "seconds", 0.1)
    target, queue, released = SlowestLab(VirtualTime(), 1, 0), PatientQueue(), threading.Event()
    monkeypatch.setattr(target, "attempt", lambda _: released.wait(30))
    spec = {"kind": "windows", "writes": 1, "rate": 200}
    experiment = cast("Experiment", {"id": "x", "spec": spec})
    try:
        Performance(cast("Any", queue), target, cast("Any", None), experiment).perform()
    finally:
        released.set()
    found = queue.reported[-1]
    assert (found["state"], found["reason"]) == ("failed", "it took longer than its bound of 0 s")


ATTEMPTS_MAX = 1000


class Done(threading.Event):
    """Set after three waits or too many attempts, without waiting in real time."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0
        self.waits: list[float | None] = []

    def refuse(self, *_: object) -> None:
        """Fail like a queue whose log server refuses connections."""
        self.attempts += 1
        if self.attempts >= ATTEMPTS_MAX:
            self.set()
        raise LogUnreachable("refused")

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) == 3:
            self.set()
        return self.is_set()


def test_waiting_for_a_stop_pauses_while_the_log_server_refuses_connections() -> None:
    done = Done()
    nothing, queue = cast("Any", None), cast("Any", type("Queue", (), {"wait_for_stop": done.refuse}))
    performance = Performance(queue, nothing, nothing, cast("Any", experiment("windows", None)))
    performance._done = done
    performance._listen()
    assert (done.attempts, done.waits) == (3, [1, 1, 1])
