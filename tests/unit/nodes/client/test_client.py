"""The client's writes and measurements, with answers of stub nodes."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from nodes.client.client import Client
from nodes.client.directory import Directory
from nodes.client.errors import NoReplicas
from nodes.client.metrics import ClientMetrics
from nodes.http.peers import PeerError, PeerRefused, Reply
from nodes.http.writing import WriteBody
from nodes.runtime.tracing import Tracing
from tests.support.peers import CONTRACT_ONLY, GONE, PRIMARY, StubPeers, at, replicas
from tests.support.problems import answered


def make(**answers: Any) -> tuple[Client, StubPeers, CollectorRegistry]:
    peers = StubPeers(**{"primary/replicas": replicas("r1", "r2"), **answers})
    registry = CollectorRegistry()
    return Client(PRIMARY, peers, Directory(peers, PRIMARY), ClientMetrics(registry), Tracing()), peers, registry


BODY = WriteBody(key="k", value=1)
WRITTEN = {"version": 7, "position": "1-7", "write_id": "w"}


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


def test_a_replica_that_reports_only_its_position_is_read_and_waited_for() -> None:
    reached = at(7, reached=True, applied_after_ms=1)
    client, _, _ = make(**{"primary/data": WRITTEN, "r1/version": CONTRACT_ONLY, "r2/version": reached})
    read = client.write_and_read(BODY, "w")["immediate_reads"]["r1"]
    assert read == {"version": 7, "has_new_data": True, "data_age_ms": None}
    waited = client.write_and_wait(BODY, "w", 5000)["replicas"]["r1"]
    assert waited == {"applied_after_ms": None, "observed_after_ms": 0.0, "attempts": 1}


def test_a_reset_ends_the_wait() -> None:
    client, _, _ = make(**{"primary/data": WRITTEN, "r1/version": at(0, epoch=2, reached=False), "r2/version": GONE})
    found = client.write_and_wait(BODY, "w", 0)
    assert found["missing"] == ["r1", "r2"]
    assert "the lab was reset" in found["replicas"]["r1"]["error"]


def test_a_refusal_of_a_write_is_passed_on_unchanged() -> None:
    client, _, _ = make(**{"primary/data": (422, {"status": 422, "detail": "no"})})
    with pytest.raises(PeerRefused) as refused:
        client.write_and_read(BODY, "w")
    assert (refused.value.status, refused.value.body["detail"]) == (422, "no")


def test_a_refused_second_attempt_leaves_the_outcome_of_the_first_unknown() -> None:
    refusal = {"status": 503, "outcome": "not_applied"}
    client, _, _ = make(**{"primary/data": Reply(503, refusal, 1.0, repeated=True)})
    with pytest.raises(PeerRefused) as refused:
        client.write_and_read(BODY, "w")
    assert refused.value.body["outcome"] == "unknown"


@pytest.mark.parametrize(("sent", "outcome"), [(True, "unknown"), (False, "not_applied")])
def test_the_outcome_of_an_unanswered_write_depends_on_whether_it_was_sent(sent: bool, outcome: str) -> None:
    client, _, _ = make(**{"primary/data": PeerError("silence", sent=sent)})
    with pytest.raises(PeerError) as refused:
        client.write_and_wait(BODY, "w", 100)
    problem = answered(refused.value)
    assert (problem.status, problem.slug, problem.outcome) == (503, "primary-unavailable", outcome)
    assert problem.extra["write_id"] == "w"


def test_nothing_is_written_without_replicas() -> None:
    client, peers, _ = make(**{"primary/replicas": replicas()})
    with pytest.raises(NoReplicas, match="No replica"):
        client.write_and_read(BODY, "w")
    assert not [ask for ask in peers.asked if ask.method == "POST"]


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
    client.metrics.reads.labels("r2", "error").inc()  # by a request that was in progress
    client._look_out()
    assert exported() == {"r1"}
