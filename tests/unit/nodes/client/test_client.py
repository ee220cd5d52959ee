"""The client's judgement, on answers of nodes that are not there."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from nodes.client.client import Client
from nodes.client.directory import Directory
from nodes.client.metrics import ClientMetrics
from nodes.http.peers import PeerError, PeerRefused, Reply
from nodes.http.problem import Problem
from nodes.http.writing import WriteBody
from nodes.runtime.config import load
from nodes.runtime.tracing import CarriedTracing
from tests.support.peers import LAB, StubPeers, at, replicas

PRIMARY = "http://127.0.0.1:8000"


def make(**answers: Any) -> tuple[Client, StubPeers, CollectorRegistry]:
    peers = StubPeers(**{"primary/replicas": replicas("r1", "r2"), **answers})
    registry = CollectorRegistry()
    directory = Directory(peers, PRIMARY)
    client = Client(
        load("client", {}), peers=peers, directory=directory, metrics=ClientMetrics(registry), tracing=CarriedTracing()
    )
    return client, peers, registry


BODY = WriteBody(key="k", value=1)
WRITTEN = {"version": 7, "position": "1-7", "write_id": "w"}
GONE = PeerError("http://r2 cannot be reached", sent=False)


def test_a_replica_that_registers_a_moment_later_is_known_at_once() -> None:
    peers = StubPeers(**{"primary/replicas": [replicas(), replicas("r1"), replicas("r1", "r2")]})
    directory = Directory(peers, PRIMARY)
    assert directory.replicas() == []
    assert [known.replica for known in directory.replicas()] == ["r1"]
    assert [known.replica for known in directory.replicas()] == ["r1"], "remembered from then on"
    assert [known.replica for known in directory.now()] == ["r1", "r2"], "what measures misses none"


def test_a_lab_is_known_by_its_id_from_the_first_answer_on() -> None:
    peers = StubPeers(**{"primary/replicas": [GONE, GONE, replicas("r1"), GONE]})
    directory = Directory(peers, PRIMARY)
    with pytest.raises(Problem, match="not reported yet which lab this is") as failed:
        directory.lab()
    assert failed.value.status == 503
    directory.now()
    assert directory.lab() == LAB
    directory.now()
    assert directory.lab() == LAB


def test_reads_right_after_a_write_are_fresh_stale_or_an_error() -> None:
    client, _, registry = make(**{"primary/data": WRITTEN, "r1/version": at(6), "r2/version": at(7)})
    found = client.write_and_read(BODY, "w")
    assert (found["stale_read_count"], found["total_replicas"]) == (1, 2)
    assert found["immediate_reads"]["r1"] == {"version": 6, "has_new_data": False, "data_age_ms": 1.0}
    assert found["immediate_reads"]["r2"]["has_new_data"]
    assert registry.get_sample_value("ec_reads_total", {"replica": "r1", "result": "stale"}) == 1
    assert registry.get_sample_value("ec_reads_total", {"replica": "r2", "result": "fresh"}) == 1


def test_a_replica_that_cannot_be_reached_is_neither_fresh_nor_stale() -> None:
    client, _, registry = make(**{"primary/data": WRITTEN, "r1/version": at(7), "r2/version": GONE})
    found = client.write_and_read(BODY, "w")
    assert (found["stale_read_count"], found["immediate_reads"]["r2"]) == (0, {"error": "http://r2 cannot be reached"})
    assert registry.get_sample_value("ec_reads_total", {"replica": "r2", "result": "error"}) == 1


def test_a_window_ends_when_the_last_replica_has_the_write() -> None:
    reached = at(7, reached=True, applied_after_ms=500.0)
    client, peers, registry = make(**{"primary/data": WRITTEN, "r1/version": reached, "r2/version": reached})
    found = client.write_and_wait(BODY, "w", 5000)
    assert (found["consistency_achieved"], found["consistency_time_ms"], found["attempts"]) == (True, 0.0, 1)
    assert found["replicas"]["r1"] == {"applied_after_ms": 500.0, "observed_after_ms": 0.0, "attempts": 1}
    assert registry.get_sample_value("ec_consistency_window_seconds_count", {"outcome": "converged"}) == 1
    waits = [ask.fields for ask in peers.asked if ask.url.endswith("/version")]
    assert all(fields is not None and fields["min_position"] == "1-7" for fields in waits)


def test_a_reset_ends_the_wait() -> None:
    client, _, _ = make(**{"primary/data": WRITTEN, "r1/version": at(0, epoch=2, reached=False), "r2/version": GONE})
    found = client.write_and_wait(BODY, "w", 0)
    assert found["missing"] == ["r1", "r2"]
    assert "the lab was reset" in found["replicas"]["r1"]["error"]


def test_a_refused_write_is_passed_on_as_it_came() -> None:
    client, _, _ = make(**{"primary/data": (422, {"status": 422, "detail": "no"})})
    with pytest.raises(PeerRefused) as refused:
        client.write_and_read(BODY, "w")
    assert (refused.value.status, refused.value.body["detail"]) == (422, "no")


def test_what_a_second_attempt_was_told_says_nothing_of_the_first() -> None:
    refusal = {"status": 503, "outcome": "not_applied"}
    client, _, _ = make(**{"primary/data": Reply(503, refusal, 1.0, repeated=True)})
    with pytest.raises(PeerRefused) as refused:
        client.write_and_read(BODY, "w")
    assert refused.value.body["outcome"] == "unknown"


@pytest.mark.parametrize(("sent", "outcome"), [(True, "unknown"), (False, "not_applied")])
def test_a_primary_that_does_not_answer_leaves_the_outcome_known_or_not(sent: bool, outcome: str) -> None:
    client, _, _ = make(**{"primary/data": PeerError("silence", sent=sent)})
    with pytest.raises(Problem) as refused:
        client.write_and_wait(BODY, "w", 100)
    assert (refused.value.status, refused.value.extra["outcome"], refused.value.extra["write_id"]) == (
        503,
        outcome,
        "w",
    )


def test_nothing_is_written_where_nobody_replicates() -> None:
    client, peers, _ = make(**{"primary/replicas": replicas()})
    with pytest.raises(Problem, match="No replica"):
        client.write_and_read(BODY, "w")
    assert not [ask for ask in peers.asked if ask.method == "POST"]


def test_replicas_are_compared_with_the_primary() -> None:
    client, _, _ = make(**{"primary/version": at(7), "r1/version": at(5), "r2/version": at(7)})
    assert client.compare(digest=False)["analysis"] == {
        "primary_version": 7,
        "stale_replicas": [{"name": "r1", "version": 5, "behind_by": 2}],
        "consistent_replicas": ["r2"],
        "all_consistent": False,
    }


def test_a_replica_in_an_earlier_epoch_is_behind_whatever_its_version() -> None:
    client, _, _ = make(**{"primary/version": at(0, epoch=2), "r1/version": at(0, epoch=2), "r2/version": at(9)})
    analysis = client.compare(digest=False)["analysis"]
    assert analysis["stale_replicas"] == [{"name": "r2", "version": 9, "behind_by": 1}]


def test_without_the_primary_nothing_is_called_consistent() -> None:
    client, _, _ = make(**{"primary/version": GONE, "r1/version": at(7), "r2/version": at(7)})
    found = client.compare(digest=False)
    assert "error" in found["primary"]
    assert found["analysis"]["all_consistent"] is False
    status = client.status()
    assert (status["all_consistent"], status["error"]) == (False, str(GONE))
    assert status["replicas"][0]["version_behind"] is None


@pytest.mark.parametrize(
    ("r1", "r2", "equal", "diverged"),
    [
        (("1-7", "d"), ("1-7", "d"), True, []),
        (("1-7", "d"), ("1-7", "x"), False, ["r2"]),
        (("1-6", "x"), ("1-7", "d"), None, []),  # at another position a digest says nothing
    ],
)
def test_digests_are_compared_at_equal_positions_only(
    r1: Any, r2: Any, equal: bool | None, diverged: list[str]
) -> None:
    answers = {f"{name}/version": at(7) for name in ("primary", "r1", "r2")}
    for name, (position, digest) in {"primary": ("1-7", "d"), "r1": r1, "r2": r2}.items():
        answers[f"{name}/digest"] = {"position": position, "digest": digest, "keys": 1}
    analysis = make(**answers)[0].compare(digest=True)["analysis"]
    assert (analysis["digests_equal"], analysis["diverged"]) == (equal, diverged)


def test_the_status_has_the_lag_as_the_log_shows_it() -> None:
    client, _, _ = make(**{"primary/version": at(7, write_id="w"), "r1/version": at(5), "r2/version": at(7)})
    found = client.status()
    assert (found["primary_version"], found["primary_write_id"], found["waiting_for_consistency"]) == (7, "w", False)
    states = [(r["replica_id"], r["version_behind"], r["lag_ms"], r["is_consistent"]) for r in found["replicas"]]
    assert states == [("r1", 2, 33.0, False), ("r2", 0, 0.0, True)]


def test_replicas_are_remembered_while_the_primary_is_away() -> None:
    peers = StubPeers(**{"primary/replicas": [replicas("r1"), GONE, replicas("r1", "r3")]})
    directory = Directory(peers, PRIMARY)
    assert [[known.replica for known in directory.now()] for _ in range(3)] == [["r1"], ["r1"], ["r1", "r3"]]


def test_reads_of_a_replica_that_was_forgotten_are_no_longer_exported() -> None:
    listed = [replicas("r1", "r2"), GONE, replicas("r1"), replicas("r1")]
    client, _, registry = make(**{"primary/replicas": listed})
    client._lookout.stop()  # so that its pause does not wait

    def exported() -> set[str]:
        samples = [sample for metric in registry.collect() for sample in metric.samples]
        return {sample.labels["replica"] for sample in samples if sample.name == "ec_reads_total"}

    client._look_out()
    assert exported() == {"r1", "r2"}
    client._look_out()
    assert exported() == {"r1", "r2"}, "the primary does not answer"
    client._look_out()
    assert exported() == {"r1"}
    client._metrics.reads.labels("r2", "error").inc()  # by a request that was in progress
    client._look_out()
    assert exported() == {"r1"}


def test_a_read_never_asks_for_the_replicas_once_some_are_known() -> None:
    peers = StubPeers(**{"primary/replicas": [replicas("r1"), replicas("r1", "r3")]})
    directory = Directory(peers, PRIMARY)
    for _ in range(5):
        assert [known.replica for known in directory.replicas()] == ["r1"]
    assert len(peers.asked) == 1
    directory.now()  # the lookout's question
    assert [known.replica for known in directory.replicas()] == ["r1", "r3"]
    assert len(peers.asked) == 2
