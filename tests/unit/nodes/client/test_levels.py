"""Reading at a level, with answers of stub nodes."""

import threading
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from broker.position import Position
from nodes.client.directory import Directory, LogHead
from nodes.client.errors import LevelNotReached, NoReplicaToRead, ReadRefused
from nodes.client.levels import LevelQuery, Nodes
from nodes.client.metrics import ClientMetrics
from nodes.client.reading import Reader
from nodes.client.session import Session as LabSession
from nodes.http.peers import Ask, PeerError, Reply
from tests.support.peers import GONE, LAB, PRIMARY, StubPeers, at, replicas
from tests.support.problems import answered
from tests.support.until import until

HEAD = "primary/version"
Session = partial(LabSession, LAB)


def record(source: str, version: int, position: str, newest: str = "") -> dict[str, Any]:
    found = {"source": source, "key": "k", "value": version, "version": version, "position": position}
    return {**found, "newest_applied": newest or position}


def refusal(status: int, position: str) -> tuple[int, dict[str, Any]]:
    return status, {"status": status, "detail": "no", "position": position}


def make(**answers: Any) -> tuple[Reader, StubPeers, CollectorRegistry]:
    return make_of(StubPeers(**{"primary/replicas": replicas("r1"), **answers}))


def make_of(
    peers: StubPeers, monotonic: Callable[[], float] = lambda: 10.0
) -> tuple[Reader, StubPeers, CollectorRegistry]:
    registry = CollectorRegistry()
    head = LogHead(peers, PRIMARY, patience_seconds=0.05)
    nodes = Nodes(PRIMARY, peers, Directory(peers, PRIMARY), head, Random(1), monotonic)  # the stub answers at 10.25
    return Reader(nodes, ClientMetrics(registry)), peers, registry


class HangingPrimary(StubPeers):
    """A primary that hangs after the replicas are known: it accepts requests but does not respond."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(**{"primary/replicas": replicas("r1"), **answers})
        self.resumed = threading.Event()
        self.hangs = True

    def ask(self, ask: Ask) -> Reply:
        if self.hangs and ask.url == f"{PRIMARY}/version":
            self.asked.append(ask)
            assert self.resumed.wait(10)
            raise PeerError("it did not answer in time", sent=True)
        return super().ask(ask)


def asked(peers: StubPeers, path: str) -> list[Any]:
    return [found.fields for found in peers.asked if found.url.replace(PRIMARY, "http://primary").endswith(path)]


def counted(registry: CollectorRegistry, level: str, outcome: str) -> float | None:
    return registry.get_sample_value("ec_level_reads_total", {"level": level, "outcome": outcome})


def test_strong_returns_the_primarys_answer() -> None:
    levels, peers, registry = make(**{HEAD: at(5), "primary/data/k": record("lab14-primary", 4, "1-5")})
    found = levels.read("k", LevelQuery(level="strong"), Session())
    expected = (4, "lab14-primary", "strong", False)
    assert (found["value"], found["source"], found["level_had"], found["stale"]) == expected
    assert asked(peers, "/data/k") == [None]
    assert counted(registry, "strong", "fresh") == 1


def test_eventual_returns_the_replicas_value_and_its_staleness() -> None:
    ages = {"applied_at": "2026-11-23T12:00:00.000Z", "write_timestamp": "2026-11-23T12:00:01.500Z"}
    head = [at(5), {**at(5, reached=True, **ages), "data_age_ms": 20.0}]
    levels, peers, registry = make(**{HEAD: head, "r1/data/k": record("r1", 2, "1-3")})
    found = levels.read("k", LevelQuery(level="eventual"), Session())
    assert (found["stale"], found["behind_versions"], found["stale_ms"]) == (True, 2, 1520.0)
    assert found["level_had"] == "prefix"
    assert asked(peers, "/version") == [None, {"min_position": "1-4", "timeout_ms": "0"}]
    assert asked(peers, "r1/data/k") == [None]
    assert counted(registry, "eventual", "stale") == 1


def test_a_read_without_missing_writes_satisfied_level_strong() -> None:
    levels, _, _ = make(**{HEAD: at(5), "r1/data/k": record("r1", 2, "1-5")})
    assert levels.read("k", LevelQuery(level="prefix"), Session())["level_had"] == "strong"


def test_session_requires_what_the_session_wrote_and_was_shown() -> None:
    levels, peers, _ = make(**{HEAD: at(9), "r1/data/k": record("r1", 2, "1-8")})
    found = levels.read("k", LevelQuery(level="session"), Session(Position(1, 7), Position(1, 8)))
    assert asked(peers, "r1/data/k")[0]["min_position"] == "1-8"
    assert (found["level_had"], found["token"]) == ("session", f"1-8.{LAB}")


def test_a_new_session_does_not_wait() -> None:
    levels, peers, _ = make(**{HEAD: at(9), "r1/data/k": record("r1", 2, "1-2")})
    assert levels.read("k", LevelQuery(level="session"), Session())["level_had"] == "prefix"
    assert asked(peers, "r1/data/k") == [None]


@pytest.mark.parametrize(
    ("token", "status", "slug"),
    [
        (Position(1, 10), 400, "position-not-issued"),
        (Position(3, 0), 400, "position-not-issued"),
        (Position(1, 9), 412, "earlier-epoch"),
    ],
)
def test_an_invalid_token_is_rejected_immediately_and_ends_the_session(token: Position, status: int, slug: str) -> None:
    head = at(9) if status == 400 else at(0, 2)
    levels, peers, registry = make(**{HEAD: head, "r1/data/k": refusal(504, "1-6")})
    with pytest.raises(ReadRefused) as failed:
        levels.read("k", LevelQuery(level="session"), Session(written=token))
    found = answered(failed.value)
    assert (found.status, found.slug) == (status, slug)
    assert "Max-Age=0" in found.headers["Set-Cookie"]
    assert [fields["timeout_ms"] for fields in asked(peers, "/data/k")] == ["0"], "no node waits for it"
    assert counted(registry, "session", "refused") == 1


@pytest.mark.parametrize(
    ("bounds", "target"),
    [
        ({"max_lag_versions": 3}, "1-6"),
        ({"max_lag_versions": 30}, "1-0"),
        ({"max_lag_ms": 250}, "1-4"),
        ({"max_lag_versions": 3, "max_lag_ms": 250}, "1-6"),
        ({"max_lag_versions": 8, "max_lag_ms": 250}, "1-4"),
    ],
)
def test_bounded_requires_the_oldest_position_within_its_bounds(bounds: dict[str, Any], target: str) -> None:
    answers = {HEAD: at(9), "primary/position": {"position": "1-4", "head": "1-9"}, "r1/data/k": record("r1", 2, "1-9")}
    levels, peers, _ = make(**answers)
    levels.read("k", LevelQuery(level="bounded", **bounds), Session())
    assert asked(peers, "r1/data/k")[0]["min_position"] == target
    assert asked(peers, "/position") == ([{"age_ms": "250.0"}] if "max_lag_ms" in bounds else [])


def test_a_reset_between_bound_and_read_makes_a_new_bound() -> None:
    reads = [refusal(412, "2-0"), record("r1", 0, "2-1")]
    levels, peers, _ = make(**{HEAD: [at(9), at(1, 2)], "r1/data/k": reads})
    found = levels.read("k", LevelQuery(level="bounded", max_lag_versions=0), Session())
    assert found["position"] == "2-1"
    assert [fields["min_position"] for fields in asked(peers, "r1/data/k")] == ["1-9", "2-1"]


def test_a_level_that_is_not_reached_in_time_is_a_504_with_the_position_of_the_node() -> None:
    levels, _, registry = make(**{HEAD: at(9), "r1/data/k": refusal(504, "1-6")})
    with pytest.raises(LevelNotReached, match="needs 1-8; the node was at 1-6 after 300 ms") as failed:
        levels.read("k", LevelQuery(level="session", timeout_ms=300), Session(written=Position(1, 8)))
    found = answered(failed.value)
    assert (found.status, found.extra["position"]) == (504, "1-6")
    assert counted(registry, "session", "timeout") == 1


@pytest.mark.parametrize("level", ["eventual", "prefix", "session"])
def test_a_level_without_the_primary_does_not_wait_for_a_hanging_primary(level: Any) -> None:
    peers = HangingPrimary(**{"r1/data/k": record("r1", 2, "1-8")})
    levels, _, registry = make_of(peers)
    for _ in range(20):
        found = levels.read("k", LevelQuery(level=level), Session(written=Position(1, 8)))
        assert (found["source"], found["stale"], found["behind_versions"]) == ("r1", None, None)
    assert len(asked(peers, "primary/version")) == 1, "one question is out, however many reads there are"
    peers.resumed.set()
    assert counted(registry, level, "unknown") == 20


def test_a_session_waits_at_the_replica_even_if_the_primary_hangs() -> None:
    peers = HangingPrimary(**{"r1/data/k": [refusal(504, "1-6"), record("r1", 2, "1-8")]})
    levels, _, _ = make_of(peers)
    found = levels.read("k", LevelQuery(level="session", timeout_ms=300), Session(written=Position(1, 8)))
    peers.resumed.set()
    assert (found["position"], found["stale"]) == ("1-8", None)
    assert [fields["timeout_ms"] for fields in asked(peers, "/data/k")] == ["0", "300"]


def test_reads_wait_again_for_a_primary_that_responds_again() -> None:
    peers = HangingPrimary(**{HEAD: at(9), "r1/data/k": record("r1", 2, "1-9")})
    levels, _, _ = make_of(peers)
    assert levels.read("k", LevelQuery(), Session())["stale"] is None
    peers.hangs = False
    peers.resumed.set()
    until(lambda: levels.read("k", LevelQuery(), Session())["stale"] is False)


def test_the_reported_wait_covers_the_whole_read() -> None:
    now = [10.0]

    class SlowPrimary(StubPeers):
        def ask(self, ask: Ask) -> Reply:
            if ask.url == f"{PRIMARY}/version":
                now[0] += 4.0
            return super().ask(ask)

    answers = {"primary/replicas": replicas("r1"), HEAD: at(9), "r1/data/k": record("r1", 2, "1-9")}
    levels, _, registry = make_of(SlowPrimary(**answers), lambda: now[0])
    assert levels.read("k", LevelQuery(), Session())["waited_ms"] == 4000.0
    assert registry.get_sample_value("ec_read_wait_seconds_sum", {"level": "eventual"}) == 4.0


@pytest.mark.parametrize(("age_ms", "stale"), [(200.0, False), (300.0, True)])
def test_a_write_during_the_read_does_not_make_it_stale(age_ms: float, stale: bool) -> None:
    when = "2026-11-23T12:00:00.000Z"
    oldest = {**at(5, reached=True), "applied_at": when, "write_timestamp": when, "data_age_ms": age_ms}
    levels, _, _ = make(**{HEAD: [at(5), oldest], "r1/data/k": record("r1", 2, "1-4")})
    found = levels.read("k", LevelQuery(), Session())  # it took 250 ms
    assert (found["stale"], found["behind_versions"]) == (stale, int(stale))


def test_while_the_primary_is_away_replicas_are_read_with_unknown_staleness() -> None:
    levels, _, registry = make(**{HEAD: GONE, "r1/data/k": record("r1", 2, "1-3")})
    found = levels.read("k", LevelQuery(level="eventual"), Session())
    expected = (None, None, None, "prefix")
    assert (found["stale"], found["behind_versions"], found["stale_ms"], found["level_had"]) == expected
    assert counted(registry, "eventual", "unknown") == 1


@pytest.mark.parametrize("level", ["strong", "bounded", "eventual"])
def test_a_node_that_does_not_answer_is_a_503(level: Any) -> None:
    bounds = {"max_lag_versions": 1} if level == "bounded" else {}
    levels, _, registry = make(**{HEAD: GONE, "primary/data/k": GONE, "r1/data/k": GONE})
    with pytest.raises(PeerError) as failed:
        levels.read("k", LevelQuery(level=level, **bounds), Session())
    found = answered(failed.value)
    assert (found.status, found.slug, found.extra["level"]) == (503, "node-unavailable", level)
    assert counted(registry, level, "error") == 1


def test_if_one_replica_does_not_answer_another_is_read() -> None:
    answers = {"primary/replicas": replicas("r1", "r2", "r3"), HEAD: at(9), "r2/data/k": record("r2", 2, "1-9")}
    for _ in range(5):
        levels, _, registry = make(**answers, **{"r1/data/k": GONE, "r3/data/k": GONE})
        assert levels.read("k", LevelQuery(), Session())["source"] == "r2"
        assert counted(registry, "eventual", "fresh") == 1
    with pytest.raises(PeerError):
        levels.read("k", LevelQuery(replica="r1"), Session())


@pytest.mark.parametrize(
    "contract_only", [{"key": "k", "value": 2, "version": 2, "position": "1-9"}, (404, {"position": "1-9"})]
)
def test_a_replica_that_does_not_read_at_levels_is_left_out(contract_only: Any) -> None:
    answers = {"primary/replicas": replicas("r1", "r2"), HEAD: at(9), "r2/data/k": record("r2", 2, "1-9")}
    levels, _, _ = make(**answers, **{"r1/data/k": contract_only})
    for _ in range(5):
        assert levels.read("k", LevelQuery(), Session())["source"] == "r2"
    with pytest.raises(PeerError, match="does not read at consistency levels"):
        levels.read("k", LevelQuery(replica="r1"), Session())


def test_a_missing_key_has_version_0_and_a_position() -> None:
    missing = (404, {"status": 404, "detail": "no", "source": "r1", "position": "1-9"})
    levels, _, _ = make(**{HEAD: at(9), "r1/data/a%2Fb": missing})
    found = levels.read("a/b", LevelQuery(), Session())
    assert (found["version"], found["value"], found["position"], found["stale"]) == (0, None, "1-9", False)


def in_order_of_arrival() -> dict[str, Any]:
    found = replicas("r1")
    found["replicas"][0]["order"] = "arrival"
    return found


def test_level_prefix_does_not_read_from_a_replica_in_order_of_arrival() -> None:
    levels, _, _ = make(**{"primary/replicas": in_order_of_arrival(), HEAD: at(9)})
    with pytest.raises(ReadRefused) as failed:
        levels.read("k", LevelQuery(level="prefix"), Session())
    found = answered(failed.value)
    assert (found.status, found.slug) == (409, "level-not-available")


@pytest.mark.parametrize(
    "answer", [record("r1", 2, "1-3", "1-8"), (404, {"status": 404, **record("r1", 0, "1-3", "1-8")})]
)
def test_level_prefix_does_not_return_what_has_just_been_applied_in_order_of_arrival(answer: Any) -> None:
    known = {"primary/replicas": replicas("r1", "r2"), HEAD: at(9), "r1/data/k": answer}
    levels, _, _ = make(**known, **{"r2/data/k": record("r2", 2, "1-2")})
    assert {levels.read("k", LevelQuery(level="prefix"), Session())["source"] for _ in range(20)} == {"r2"}
    with pytest.raises(ReadRefused, match="r1 is at 1-3, and has applied entries beyond it, up to 1-8") as failed:
        levels.read("k", LevelQuery(level="prefix", replica="r1"), Session())
    assert answered(failed.value).status == 409


def test_a_token_covers_a_record_that_is_newer_than_the_position() -> None:
    shown = record("r1", 8, "1-3", "1-8")
    answers = {"primary/replicas": in_order_of_arrival(), HEAD: at(9), "r1/data/k": shown}
    levels, _, _ = make(**answers)
    found = levels.read("k", LevelQuery(), Session())
    assert (found["position"], found["token"], found["level_had"]) == ("1-3", f"1-8.{LAB}", "eventual")


def missing(source: str, position: str) -> tuple[int, dict[str, Any]]:
    return 404, {"status": 404, "detail": "no", "source": source, "position": position}


def quorum(orders: str, *answers: Any) -> tuple[Reader, StubPeers, CollectorRegistry]:
    """Replicas with these answers, each in order log or arrival by its letter."""
    names = [f"r{number}" for number in range(1, len(answers) + 1)]
    known = replicas(*names)
    for replica, order in zip(known["replicas"], orders, strict=True):
        replica["order"] = {"l": "log", "a": "arrival"}[order]
    data = {f"{name}/data/k": answer for name, answer in zip(names, answers, strict=True)}
    return make(**{"primary/replicas": known, HEAD: at(9), **data})


@pytest.mark.parametrize(
    ("orders", "answers", "source"),
    [
        ("ll", (record("r1", 5, "1-6"), record("r2", 2, "1-4")), "r1"),
        ("ll", (record("r1", 2, "1-4"), record("r2", 2, "1-8")), "r2"),
        ("ll", (missing("r1", "1-9"), record("r2", 5, "1-6")), "r1"),
        ("ll", (missing("r1", "1-4"), record("r2", 5, "1-6")), "r2"),
        ("ll", (missing("r1", "1-4"), missing("r2", "1-6")), "r2"),
        ("ll", (missing("r1", "2-0"), record("r2", 5, "1-6")), "r1"),
        ("ll", (record("r1", 1, "2-1"), record("r2", 5, "1-6")), "r1"),
        ("aa", (record("r1", 8, "1-3"), record("r2", 2, "1-7")), "r1"),
        ("aa", (missing("r1", "1-3"), record("r2", 2, "1-7")), "r1"),  # deleted beyond its position
        ("aa", (missing("r1", "1-3"), record("r2", 5, "1-7")), "r2"),
        ("la", (missing("r1", "1-6"), record("r2", 8, "1-3")), "r2"),
    ],
)
def test_a_quorum_returns_the_newest_answer(orders: str, answers: tuple[Any, Any], source: str) -> None:
    levels, _, registry = quorum(orders, *answers)
    found = levels.read("k", LevelQuery(level="quorum", r=2), Session())
    assert (found["source"], found["r"], set(found["asked"])) == (source, 2, {"r1", "r2"})
    assert found["asked"][source]["version"] == found["version"]
    assert found["stale"] is (found["position"] < "1-9")
    assert counted(registry, "quorum", "stale" if found["stale"] else "fresh") == 1


def test_the_level_that_a_quorum_read_had_is_that_of_the_answer_it_returns() -> None:
    for newest, position, had in (("", "1-9", "strong"), ("", "1-8", "session"), ("1-9", "1-7", "eventual")):
        levels, _, _ = quorum("al", record("r1", 5, position, newest), record("r2", 2, "1-4"))
        session = Session(written=Position(1, 8))
        assert levels.read("k", LevelQuery(level="quorum", r=2), session)["level_had"] == had
    levels, _, _ = quorum("la", record("r1", 5, "1-7"), record("r2", 2, "1-4"))
    assert levels.read("k", LevelQuery(level="quorum", r=2), Session())["level_had"] == "prefix"


def test_a_quorum_asks_r_random_replicas_and_replaces_those_that_do_not_respond() -> None:
    answers = [record(f"r{number}", number, f"1-{number}") for number in (1, 2, 3)]
    levels, _, _ = quorum("lll", *answers)
    chosen = [levels.read("k", LevelQuery(level="quorum", r=2), Session()) for _ in range(60)]
    assert {frozenset(found["asked"]) for found in chosen} == {
        frozenset(pair) for pair in (("r1", "r2"), ("r1", "r3"), ("r2", "r3"))
    }
    for number in range(3):
        levels, _, _ = quorum("lll", *(GONE if other == number else answers[other] for other in range(3)))
        for _ in range(5):
            found = levels.read("k", LevelQuery(level="quorum", r=2), Session())
            assert set(found["asked"]) == {"r1", "r2", "r3"} - {f"r{number + 1}"}
    levels, _, registry = quorum("lll", answers[0], GONE, GONE)
    with pytest.raises(PeerError):
        levels.read("k", LevelQuery(level="quorum", r=2), Session())
    assert counted(registry, "quorum", "error") == 1


def test_a_quorum_larger_than_the_number_of_replicas_is_refused() -> None:
    levels, peers, _ = quorum("ll", record("r1", 5, "1-6"), record("r2", 5, "1-6"))
    with pytest.raises(ReadRefused, match="r=3 replicas cannot be asked: 2 are registered") as failed:
        levels.read("k", LevelQuery(level="quorum", r=3), Session())
    assert (answered(failed.value).status, asked(peers, "/data/k")) == (409, [])


def test_a_quorum_waits_for_reads_that_are_held_back() -> None:
    levels, peers, _ = quorum("ll", record("r1", 5, "1-6"), record("r2", 5, "1-6"))
    levels.read("k", LevelQuery(level="quorum", r=2, timeout_ms=4000), Session())
    assert {found.wait_ms for found in peers.asked if found.url.endswith("/data/k")} == {4000}


def test_an_unknown_replica_is_rejected_with_the_known_ones() -> None:
    levels, _, _ = make(**{HEAD: at(9)})
    with pytest.raises(NoReplicaToRead, match="known: r1") as failed:
        levels.read("k", LevelQuery(replica="r9"), Session())
    assert answered(failed.value).status == 400


def test_violated_session_guarantees_are_counted() -> None:
    levels, _, registry = make(**{HEAD: at(9), "r1/data/k": record("r1", 2, "1-3")})
    levels.read("k", LevelQuery(level="eventual"), Session(written=Position(1, 2), read=Position(1, 4)))
    name = "ec_session_violations_total"
    assert registry.get_sample_value(name, {"guarantee": "monotonic_reads"}) == 1
    assert registry.get_sample_value(name, {"guarantee": "read_your_writes"}) == 0


@pytest.mark.parametrize(
    "query",
    [
        {"level": "bounded"},
        {"level": "strong", "max_lag_ms": "5"},
        {"level": "strong", "replica": "r1"},
        {"level": "quorum"},
        {"level": "quorum", "r": "0"},
        {"level": "quorum", "r": "2", "replica": "r1"},
        {"level": "eventual", "r": "2"},
        {"level": "linear"},
        {"level": "bounded", "max_lag_ms": "-1"},
        {"level": "bounded", "max_lag_versions": "1.5"},
        {"level": "bounded", "max_lag_ms": "nan"},
    ],
)
def test_an_invalid_level_is_rejected(query: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        LevelQuery.model_validate(query)
