"""The queue: turns of workers, and held settings."""

from typing import Any

import fakeredis
import pytest

from broker.address import parse
from broker.connection import Link, connect
from broker.errors import LogUnreachable
from nodes.experiments.queue import ExperimentQueue, queue_link
from nodes.runtime.config import WorkerConfig, load


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def queue(server: fakeredis.FakeServer) -> ExperimentQueue:
    return ExperimentQueue(fakeredis.FakeRedis(server=server, protocol=2))


def test_a_workers_turn_lasts_until_it_ends_it_or_is_silent_for_five_seconds(queue: ExperimentQueue) -> None:
    a, b = queue.turn("a"), queue.turn("b")
    assert a.take()
    assert a.take()
    assert not b.take()
    b.end()
    assert not b.take()
    left_ms = queue.jobs.connection.pttl("lab14:experiment-worker")
    assert 0 < left_ms <= 5000
    assert queue.jobs.connection.get("lab14:experiment-worker") == b"a"
    a.end()
    assert b.take()


def test_a_silent_worker_takes_its_turn_again_unless_another_has_it(queue: ExperimentQueue) -> None:
    a, b = queue.turn("a"), queue.turn("b")
    for taken_by_b in (False, True):
        assert a.take()
        queue.jobs.connection.delete("lab14:experiment-worker")  # it expired
        assert not taken_by_b or b.take()
        assert a.take() is not taken_by_b


def test_held_settings_are_found_until_they_are_restored(queue: ExperimentQueue) -> None:
    assert queue.held() == {}
    queue.hold({"r1": {"seed": 1}})
    assert queue.held() == {"r1": {"seed": 1}}
    queue.hold({})
    assert queue.held() == {}


def test_ending_a_turn_does_not_end_the_turn_that_another_worker_has_taken_meanwhile(
    queue: ExperimentQueue, server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "lab14:experiment-worker"
    other = fakeredis.FakeRedis(server=server, protocol=2)
    turn = queue.turn("a")
    assert turn.take()
    genuine = queue._client.execute_command
    passed: list[Any] = []

    def then_the_lease_ends(*command: Any, **options: Any) -> Any:
        found = genuine(*command, **options)
        if not passed:
            passed.append(other.set(key, "b"))
        return found

    monkeypatch.setattr(queue._client, "execute_command", then_the_lease_ends)
    turn.end()
    assert other.get(key) == b"b"


@pytest.mark.parametrize("queue_url", ["", "redis+cluster://127.0.0.1:2"])
def test_experiments_are_refused_on_a_cluster_with_what_to_set(queue_url: str) -> None:
    config = load("worker", {"LAB_REDIS_URL": "redis+cluster://127.0.0.1:1", "LAB_QUEUE_URL": queue_url})
    assert isinstance(config, WorkerConfig)
    queue = ExperimentQueue(connect(queue_link(config, Link(parse(config.redis_url))), as_text=False))
    with pytest.raises(LogUnreachable, match="experiments do not run on a cluster; set LAB_QUEUE_URL"):
        queue.submit({"id": "e"})  # type: ignore[typeddict-item]


def test_the_queue_is_where_the_log_is_unless_another_server_is_set() -> None:
    log = Link(parse("redis://127.0.0.1:1"))
    for queue_url, shared in (("", True), ("redis://127.0.0.1:2", False)):
        config = load("worker", {"LAB_REDIS_URL": "redis://127.0.0.1:1", "LAB_QUEUE_URL": queue_url})
        assert isinstance(config, WorkerConfig)
        assert (queue_link(config, log) is log) is shared
