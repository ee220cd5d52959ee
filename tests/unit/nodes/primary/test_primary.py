"""The primary: its health, its replicas, and resets."""

from typing import Any

import pytest

from broker.errors import LogBehind, LogRefused
from broker.position import START, Position
from nodes.primary.primary import FORGET_AFTER_SECONDS
from nodes.runtime.gate import State
from tests.support import fake as fakes
from tests.support.primary import Bench


def restart(bench: Bench, client: Any) -> None:
    fakes.restart(client)
    assert not bench.log.is_verified()


def test_health_reports_that_writes_are_refused(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.write(1)
    bench.writes.failed(LogRefused("the log server refused: no"))
    assert bench.primary.health() == {"log": "ok", "writes": "the log server refused: no"}
    bench.now_seconds = 2
    assert bench.primary.health()["writes"] == "ok"
    bench.writes.failed(LogRefused("the log server refused: no"))
    bench.writes.acknowledged([bench.gate.state])
    assert bench.primary.health()["writes"] == "ok"
    fake.xadd("lab14:log", {"other": "1"})
    assert "foreign entry" in bench.primary.health()["writes"]


def test_health_reports_that_the_log_server_can_lose_entries(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(fake)
    bench.upkeep()
    monkeypatch.setattr(bench.log.history, "hazard", lambda: "it can lose entries")
    assert bench.primary.health() == {"log": "it can lose entries", "writes": "ok"}


def test_a_replica_that_never_returns_is_forgotten_with_its_group(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.replica("gone", 0, seen_seconds_ago=FORGET_AFTER_SECONDS + 1)
    bench.log.group("gone").join(START)
    bench.upkeep()
    assert bench.registered.members() == []
    assert bench.log.history.groups() == []


def test_prometheus_finds_every_registered_replica(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    assert bench.primary.scrape_targets() == [{"targets": []}]
    bench.replica("lab14-replica1", 0)
    bench.replica("lab14-replica2", 0)
    assert bench.primary.scrape_targets() == [{"targets": ["lab14-replica1", "lab14-replica2"]}]


def test_a_reset_after_a_lost_reset_reuses_none_of_its_positions(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.gate.advance(State(Position(4, 7), "w", 1))
    restart(bench, fake)
    bench.primary.reset()
    assert bench.log.head().position.epoch > 4


def test_a_server_that_lacks_what_was_seen_is_not_read_until_a_new_epoch_starts(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.write(3)
    assert bench.primary.get("k")[0].position == Position(1, 3), "what a reader has seen counts too"
    fields = fake.xrange("lab14:log", "1-2", "1-2")[0][1]
    fake.delete("lab14:log")  # as at a former master that is master again, with its replication id
    fake.xadd("lab14:log", fields, id="1-2")
    fake.hset("lab14:head", "version", 2)
    reads = [
        bench.primary.state,
        bench.primary.digest,
        lambda: bench.primary.get("k"),
        lambda: bench.primary.page("", 10),
        lambda: bench.primary.position(0),
    ]
    for read in reads:
        with pytest.raises(LogBehind, match="the log ends at 1-2, before 1-3, which was seen"):
            read()
    bench.upkeep()
    assert bench.log.head().position == Position(2, 2)
    for read in reads:
        read()
