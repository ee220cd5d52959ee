"""Acknowledgements of a write by replicas."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.delay.models import Fixed
from broker.log import ReplicationLog
from broker.position import Position
from broker.registry import Member, Registry, Settings
from nodes.http.peers import PeerError
from nodes.http.problem import problem_of
from nodes.http.writing import AcksQuery
from nodes.primary import app  # noqa: F401 - which maps its exceptions to problems
from nodes.primary.writes import Acks, TooFewReplicas
from tests.support.peers import StubPeers, at
from tests.support.primary import make_parts


def acks(fake: Any, **answers: Any) -> Acks:
    registered = Registry(fake)
    for name in ("r1", "r2"):
        member = Member(name, f"http://{name}:1", f"http://{name}", Position(1, 0), 0, 0)
        registered.heartbeat(member, Settings(Fixed(0), Fixed(0)))
    return Acks(
        make_parts(ReplicationLog(fake), CollectorRegistry(), registered=registered, peers=StubPeers(**answers))
    )


WRITTEN: Any = {"version": 7, "position": "1-7"}


def test_a_write_is_complete_when_enough_replicas_have_it(fake: Any) -> None:
    waiting = acks(fake, **{"r1/version": at(7, reached=True), "r2/version": at(6, reached=False)})
    found = waiting.complete(WRITTEN, waiting.require(1), AcksQuery(acks=1))
    assert (found["acks_reached"], found["acknowledged_by"]) == (1, ["r1"])


def test_at_the_deadline_the_answer_lists_the_replicas_that_had_it(fake: Any) -> None:
    waiting = acks(fake, **{"r1/version": at(7, reached=True), "r2/version": PeerError("gone", sent=False)})
    found = waiting.complete(WRITTEN, waiting.require(2), AcksQuery(acks=2, timeout_ms=100))
    assert found["acks_reached"] == 1


def test_a_replica_that_answers_without_the_write_has_not_acknowledged_it(fake: Any) -> None:
    waiting = acks(fake, **{"r1/version": at(7, reached=True), "r2/version": at(6, reached=False)})
    assert waiting.complete(WRITTEN, waiting.require(2), AcksQuery(acks=2))["acknowledged_by"] == ["r1"]


def test_more_acknowledgements_than_replicas_are_refused_before_the_write(fake: Any) -> None:
    with pytest.raises(TooFewReplicas, match="3 replicas are required, but 2 are registered") as failed:
        acks(fake).require(3)
    problem = problem_of(failed.value)
    assert problem is not None
    assert problem.status == 400


def test_without_acks_no_replica_is_asked(fake: Any) -> None:
    waiting = acks(fake)
    assert waiting.complete(WRITTEN, waiting.require(0), AcksQuery()) == WRITTEN
