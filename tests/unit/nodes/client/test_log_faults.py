"""Faults of the log server: what is started, shown and ended, with failovers that only record what was asked."""

from typing import Any

import pytest

from broker.errors import LogRefused, LogUnreachable
from nodes.client.controls import Faults, FaultStart
from nodes.client.directory import Directory
from nodes.client.log_faults import LogFault, LogFaults
from nodes.http.problem import Problem
from tests.support.peers import PRIMARY, StubPeers, replicas
from tests.support.until import until

NOW_US = 1767225600 * 10**6  # 2026-01-01
MASTER = "127.0.0.1:6379"
NAMES = ["failover", "failback", "isolate-master"]


class StubFailovers:
    """Takes the place of ``Failovers``."""

    def __init__(self, *, are_possible: bool = True) -> None:
        self.are_possible, self.done = are_possible, list[str]()
        self.error: Exception | None = None

    def failover(self) -> str:
        return self._do("failover")

    def failback(self) -> str:
        return self._do("failback")

    def isolate_master(self) -> str:
        return self._do("isolate-master")

    def heal(self) -> list[str]:
        self._do("heal")
        return []

    def _do(self, name: str) -> str:
        if self.error is not None:
            raise self.error
        self.done.append(name)
        return MASTER


class StubEvents:
    def __init__(self) -> None:
        self.published: list[dict[str, str]] = []
        self.error: Exception | None = None

    def publish(self, kind: str, **fields: str) -> None:
        if self.error is not None:
            raise self.error
        self.published.append({"kind": kind, **fields})


class Bench:
    def __init__(self, *, are_possible: bool = True) -> None:
        self.failovers, self.events = StubFailovers(are_possible=are_possible), StubEvents()
        self.log: Any = LogFaults(self.failovers, self.events, lambda: NOW_US)  # type: ignore[arg-type]
        peers = StubPeers(**{"primary/replicas": replicas("r1"), "r1/admin/faults": {"faults": [], "ended": []}})
        self.faults = Faults(peers, Directory(peers, PRIMARY), None, self.log)

    def start(self, fault: str, **parameters: Any) -> dict[str, Any]:
        return self.faults.start(FaultStart(replica="log", fault=fault, **parameters))

    @property
    def active(self) -> list[dict[str, Any]]:
        return list(self.faults.show()["log"]["faults"])


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("fault", ["failover", "failback"])
def test_a_momentary_fault_is_done_reported_and_not_active_afterwards(bench: Bench, fault: str) -> None:
    found = bench.start(fault)
    assert found == {
        "replica": "log",
        "fault": fault,
        "parameters": {"master": MASTER},
        "since": "2026-01-01T00:00:00.000000Z",
        "until": None,
    }
    assert bench.failovers.done == [fault]
    assert bench.events.published == [
        {"kind": "fault", "replica": "log", "fault": fault, "parameters": "{}", "master": MASTER}
    ]
    assert bench.faults.show()["log"] == {"faults": [], "available": NAMES}


def test_an_isolated_master_is_shown_until_it_is_healed(bench: Bench) -> None:
    bench.start("isolate-master")
    assert [(one["fault"], one["until"]) for one in bench.active] == [("isolate-master", None)]
    assert bench.faults.end("log", "isolate-master") == {"replica": "log", "ended": ["isolate-master"]}
    assert bench.failovers.done == ["isolate-master", "heal"]
    assert [event["kind"] for event in bench.events.published] == ["fault", "fault_ended"]
    assert bench.active == []


def test_a_duration_heals_it(bench: Bench) -> None:
    assert bench.start("isolate-master", duration_ms=50)["until"] == "2026-01-01T00:00:00.050000Z"
    until(lambda: bench.active == [])
    assert bench.failovers.done == ["isolate-master", "heal"]


def test_an_ended_isolation_leaves_no_timer_that_could_end_the_next_one(bench: Bench) -> None:
    bench.start("isolate-master", duration_ms=60_000)
    timer = bench.log._timer
    bench.faults.end_all("log")
    until(lambda: not timer.is_alive())
    assert bench.log._timer is None


def test_a_restart_replaces_the_duration(bench: Bench) -> None:
    bench.start("isolate-master", duration_ms=60_000)
    first = bench.log._timer
    bench.start("isolate-master")
    until(lambda: not first.is_alive())
    assert (bench.log._timer, len(bench.active)) == (None, 1)


def test_a_failover_does_not_end_an_isolation(bench: Bench) -> None:
    bench.start("isolate-master", duration_ms=60_000)
    bench.start("failover")
    assert [one["fault"] for one in bench.active] == ["isolate-master"]
    assert bench.log._timer.is_alive()
    bench.log.end()


def test_a_reset_heals_what_an_earlier_process_has_isolated(bench: Bench) -> None:
    assert bench.faults.reset()["log"] == {"ended": []}
    assert (bench.failovers.done, bench.events.published) == (["heal"], [])


def test_what_could_not_be_healed_stays_active(bench: Bench) -> None:
    bench.start("isolate-master")
    bench.failovers.error = LogUnreachable("no Sentinel can be reached")
    with pytest.raises(LogUnreachable):
        bench.faults.end_all("log")
    assert len(bench.active) == 1
    bench.failovers.error = None
    assert bench.faults.end_all("log")["ended"] == ["isolate-master"]


def test_what_was_refused_is_neither_active_nor_reported(bench: Bench) -> None:
    bench.failovers.error = LogRefused("its servers need the users replica and sentinel")
    with pytest.raises(LogRefused):
        bench.start("isolate-master", duration_ms=5)
    assert (bench.active, bench.events.published, bench.log._timer) == ([], [], None)


def test_a_log_server_that_is_gone_cannot_record_the_fault_which_works_all_the_same(bench: Bench) -> None:
    bench.events.error = LogUnreachable("gone")
    bench.start("isolate-master")
    assert bench.faults.end_all("log")["ended"] == ["isolate-master"]


@pytest.mark.parametrize(
    ("fault", "parameters", "field"),
    [
        ("nothing", {}, "fault"),
        ("pause", {}, "fault"),
        ("failover", {"duration_ms": 5000}, "momentary"),
        ("isolate-master", {"duration_ms": 0}, "duration_ms"),
        ("isolate-master", {"duration_ms": 3_600_001}, "duration_ms"),
        ("isolate-master", {"master": MASTER}, "master"),
    ],
)
def test_bad_input_is_a_422_that_names_the_field_and_changes_nothing(
    bench: Bench, fault: str, parameters: dict[str, Any], field: str
) -> None:
    with pytest.raises(Problem) as raised:
        bench.start(fault, **parameters)
    assert raised.value.status == 422
    assert field in raised.value.detail
    assert bench.failovers.done == []


def test_without_sentinels_there_are_no_such_faults_and_a_reset_asks_nothing() -> None:
    bench = Bench(are_possible=False)
    assert ("log" in bench.faults.show(), "log" in bench.faults.reset()) == (False, False)
    assert bench.failovers.done == []


def test_the_names_are_those_of_the_model() -> None:
    assert [LogFault(replica="log", fault=name).fault for name in NAMES] == NAMES  # type: ignore[arg-type]
