"""The quorum experiment: what it counts as stale, and which labs it refuses, with stub nodes."""

from typing import Any, cast

import pytest

from broker.delay.models import Fixed
from broker.registry import Settings
from nodes.experiments.spec import Quorum
from nodes.http.peers import Ask, PeerError, Reply
from nodes.http.times import timestamp
from nodes.worker import quorum
from nodes.worker.open_loop import Task
from nodes.worker.quorum import Acknowledged, OneKey, OwnKeys, Read, Requests, Written
from nodes.worker.run import Run, Target, TargetError


class StubLab(Target):
    """Answers by URL; replicas have acknowledged entries at these microseconds."""

    def __init__(self, acknowledged: dict[str, dict[str, int]], **answers: Any) -> None:
        self.primary_url, self.client_url, self.peers = "http://primary", "http://client", cast("Any", self)
        self._acknowledged, self._answers = acknowledged, answers
        self.asked: list[str] = []

    def replicas(self) -> dict[str, str]:
        return {name: f"http://{name}" for name in self._acknowledged}

    def settings(self) -> dict[str, Settings]:
        return {name: Settings(Fixed(5)) for name in self._acknowledged}

    def attempt(self, ask: Ask) -> Reply | PeerError:
        self.asked.append(ask.url)
        name, _, path = ask.url.removeprefix("http://").partition("/")
        if not path.startswith("acknowledged"):
            return self._answers[name]  # type: ignore[no-any-return]
        done = [{"position": at, "acknowledged_at": timestamp(us)} for at, us in self._acknowledged[name].items()]
        is_first = "cursor=start" in path
        return Reply(200, {"cursor": "end" if is_first else "start", "acknowledged": done if is_first else []}, 0)


class StubClock:
    def now_us(self) -> int:
        return 5_000_000


class HeldLoop:
    """Runs no task by itself."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def at(self, _due: float, task: Task) -> None:
        self.tasks.append(task)


def run_of(acknowledged: dict[str, dict[str, int]], **answers: Any) -> Run:
    return Run(StubLab(acknowledged, **answers), cast("Any", StubClock()), lambda *_: None, lambda: 0.0)


def acknowledged(w: int, run: Run) -> Acknowledged:
    found = Acknowledged(w, run)
    found.read()
    return found


TIMES = {"r1": {"1-1": 3000, "1-2": 9000}, "r2": {"1-1": 1000}, "r3": {"1-1": 2000}}


@pytest.mark.parametrize(("w", "at_us"), [(1, 1000), (2, 2000), (3, 3000)])
def test_a_write_returns_in_the_model_at_its_last_needed_acknowledgement(w: int, at_us: int) -> None:
    found = acknowledged(w, run_of(TIMES))
    assert found.at_us(Written(1, "1-1", 7000)) == at_us


def test_without_the_replicas_times_a_write_returned_when_its_caller_noticed() -> None:
    assert acknowledged(2, run_of(TIMES)).at_us(Written(2, "1-2", 7000)) == 7000


def test_a_read_is_stale_if_it_shows_an_older_version() -> None:
    run, spec = run_of(TIMES), Quorum(kind="quorum", steps=2)
    own = OwnKeys(spec, run, Requests(spec, run), 10.0)
    own.reads = [(Written(1, "1-1", 7000), Read(version, 4000)) for version in (0, 1, 2)]
    assert own.times_ms(acknowledged(1, run)).tolist() == [3.0, 3.0, 3.0]
    assert own.stale().tolist() == [1, 0, 0]
    assert own.figures(acknowledged(1, run), None)["stale"] == {"t_ms": [3.0], "reads": [3], "measured": [0.33333]}


def test_a_read_misses_the_versions_between_the_shown_and_the_newest_acknowledged_one() -> None:
    run, spec = run_of({"r1": {}}), Quorum(kind="quorum")
    one = OneKey(spec, run, Requests(spec, run))
    # Version 6 is acknowledged before 4; version 9 is in progress for the reads before 900.
    one.written = [Written(6, "1-6", 300), Written(2, "1-2", 100), Written(4, "1-4", 400), Written(9, "1-9", 900)]
    shown = [(0, 50), (0, 150), (2, 350), (4, 350), (6, 350), (9, 350), (2, 950)]
    one.reads = [Read(version, at_us) for version, at_us in shown]
    assert one.missing(acknowledged(1, run)).tolist() == [0, 1, 2, 1, 0, 0, 3]


def test_keys_are_used_again_after_their_last_read() -> None:
    shown = {"version": 1, "position": "1-1", "asked": {"r1": {"read_at": timestamp(1), "read_delay_ms": 0.0}}}
    written = {"version": 1, "position": "1-1", "acks_reached": 1}
    run = run_of({"r1": {}}, primary=Reply(200, written, 0), client=Reply(200, shown, 0))
    spec = Quorum(kind="quorum", reads=100, rate=10, reads_per_second=20, steps=2)
    own = OwnKeys(spec, run, Requests(spec, run), 1000.0)
    loop = HeldLoop()
    own._write(cast("Any", loop), 0, [1.0, 2.0])
    loop.tasks.pop()()
    assert own._key() == "experiment-quorum-1"
    loop.tasks.pop()()
    assert own._key() == "experiment-quorum-0"


def test_a_read_arrives_before_its_delay() -> None:
    times = [
        {"read_at": timestamp(9_000_000), "read_delay_ms": 250.0},
        {"read_at": timestamp(9_000_000), "read_delay_ms": 0},
    ]
    shown = {"version": 1, "position": "1-1", "asked": dict(zip(("r1", "r2"), times, strict=True))}
    run, spec = run_of({"r1": {}, "r2": {}}, client=Reply(200, shown, 0)), Quorum(kind="quorum", r=2)
    assert Requests(spec, run).read("k") == Read(1, 8_875_000)


def test_a_write_without_its_acknowledgements_is_an_error_and_has_no_reads() -> None:
    written = {"version": 1, "position": "1-1", "acks_reached": 1}
    run, spec = run_of({"r1": {}, "r2": {}}, primary=Reply(200, written, 0)), Quorum(kind="quorum", w=2)
    requests = Requests(spec, run)
    assert requests.write("k", 1) is None
    assert requests.errors == ["1 of 2 acknowledgements within 5000 ms"]
    assert requests.write_ms == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n": 4}, "n=4, but this lab has 3 replicas; start it with `lab up --replicas 4`, or leave n out"),
        ({"w": 4}, "r=1 and w=4 must be at most n=3, the number of replicas"),
    ],
)
def test_a_lab_with_another_number_of_replicas_is_refused(given: dict[str, int], said: str) -> None:
    with pytest.raises(TargetError) as failed:
        quorum.measure(Quorum(kind="quorum", **given), run_of(TIMES))  # type: ignore[arg-type]
    assert str(failed.value) == said
