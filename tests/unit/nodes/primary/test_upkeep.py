"""Upkeep of the log: verified after a restart, and trimmed."""

from typing import Any

import pytest

from broker.history import Memory
from broker.position import Position
from nodes.http.peers import PeerError
from tests.support import fake as fakes
from tests.support.peers import StubPeers
from tests.support.primary import Bench


def test_a_missing_log_is_started(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.upkeep()
    assert bench.log.head().position == Position(1, 0)
    assert bench.gate.state.position == Position(1, 0)


def test_a_lost_log_restarts_in_a_later_epoch(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.log.reset("r")
    bench.upkeep()
    fake.flushall()
    bench.upkeep()
    assert bench.log.head().position == Position(3, 0)


def restart(bench: Bench, client: Any) -> None:
    fakes.restart(client)
    assert not bench.log.is_verified()


def delivered(**positions: str) -> StubPeers:
    return StubPeers(**{f"{name}/applied": {"delivered": position} for name, position in positions.items()})


def test_a_restarted_log_server_that_has_everything_continues_in_its_epoch(fake: Any) -> None:
    bench = Bench(fake, delivered(a="1-10", b="1-7"))
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 9)
    bench.replica("b", 7)
    restart(bench, fake)
    bench.write_one()
    assert bench.log.head().position == Position(1, 11)
    assert bench.published("epoch") == []


def test_a_log_behind_a_replica_continues_in_a_new_epoch_before_the_next_write(fake: Any) -> None:
    bench = Bench(fake, delivered(a="1-12", b="1-7"))
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 9)
    bench.replica("b", 7)
    restart(bench, fake)
    bench.write_one()
    assert bench.log.head().position == Position(2, 11)
    (event,) = bench.published("epoch")
    assert (event["position"], event["after"], event["reason"]) == ("2-10", "1-10", "1-12 had been seen")


@pytest.mark.parametrize(
    "answer", [PeerError("gone", sent=False), (503, {}), {"delivered": "nonsense"}, {"delivered": 7}, {}]
)
def test_a_replica_that_does_not_report_its_position_leaves_a_doubt(fake: Any, answer: Any) -> None:
    bench = Bench(fake, StubPeers(**{"a/applied": answer}))
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 9)
    restart(bench, fake)
    bench.write_one()
    assert bench.log.head().position == Position(2, 11)
    assert bench.published("epoch")[0]["reason"] == "a did not report what it had seen"


def test_a_log_whose_damaged_end_was_dropped_continues_in_a_new_epoch_even_if_no_node_has_seen_more(fake: Any) -> None:
    bench = Bench(fake, delivered(a="1-7"))
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 7)
    fake.hset("lab14:head", "doubt", 1)
    restart(bench, fake)
    bench.write_one()
    assert bench.log.head().position == Position(2, 11)
    assert bench.published("epoch")[0]["reason"] == "the damaged end of its file was dropped"
    restart(bench, fake)
    bench.upkeep()
    assert bench.log.head().position == Position(2, 11)


def test_the_primary_waits_for_a_replica_that_is_just_starting(fake: Any) -> None:
    peers = StubPeers(**{"a/applied": [PeerError("not yet", sent=False), {"delivered": "1-10"}]})
    bench = Bench(fake, peers)
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 9)
    restart(bench, fake)
    bench.upkeep()
    assert (bench.log.head().position, bench.log.is_verified()) == (Position(1, 10), True)


def test_a_log_behind_what_the_primary_has_seen_continues_in_a_new_epoch(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.write(10)
    bench.upkeep()
    fake.hset("lab14:head", "version", 8)
    for version in (9, 10):
        fake.xdel("lab14:log", f"1-{version}")
    restart(bench, fake)
    assert bench.primary.health()["log"] == "asking replicas whether the log is complete"
    bench.upkeep()
    assert bench.log.head().position == Position(2, 8)
    assert bench.primary.health() == {"log": "ok", "writes": "ok"}


@pytest.mark.parametrize("cut", [False, True])
def test_writes_are_accepted_again_in_an_epoch_after_a_foreign_entry(fake: Any, cut: bool) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.write(2)
    name = fake.xadd("lab14:log", {"hello": "world"})
    assert "foreign entry" in bench.primary.health()["writes"]
    if cut:  # the log has to continue in a new epoch anyway
        fake.hset("lab14:head", "doubt", 1)
        restart(bench, fake)
    bench.upkeep()
    assert bench.primary.health() == {"log": "ok", "writes": "ok"}
    expected = "the damaged end of its file was dropped" if cut else f"the entry {name} was not written by this lab"
    assert bench.published("epoch")[0]["reason"] == expected
    bench.write_one()
    assert bench.log.head().position.version == 3
    bench.upkeep()
    assert len(bench.published("epoch")) == 1


def test_a_heartbeat_ahead_of_the_log_starts_a_new_epoch_too(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.write(3)
    bench.replica("a", 5)
    bench.upkeep()
    assert bench.log.head().position == Position(2, 3)
    bench.upkeep()
    assert bench.log.head().position == Position(2, 3)


@pytest.mark.parametrize(
    ("replicas", "first"),
    [
        ({}, "1-0"),  # no replica is known to have anything
        ({"a": 50, "b": 30}, "1-31"),  # behind the slowest
        ({"a": 100, "b": 100}, "1-91"),  # but the newest ten stay
        ({"a": 0}, "1-0"),
    ],
)
def test_the_log_is_trimmed_behind_the_slowest_live_replica(fake: Any, replicas: dict[str, int], first: str) -> None:
    bench = Bench(fake, LAB_LOG_KEEP="10")
    bench.upkeep()
    bench.write(100)
    for name, version in replicas.items():
        bench.replica(name, version)
    bench.upkeep()
    assert bench.first() == first


def test_a_replica_that_is_away_does_not_hold_the_log_back(fake: Any) -> None:
    bench = Bench(fake, LAB_LOG_KEEP="10")
    bench.upkeep()
    bench.write(100)
    bench.replica("live", 60)
    bench.replica("away", 5, seen_seconds_ago=6)
    bench.upkeep()
    assert bench.first() == "1-61"


def test_the_log_never_holds_more_than_its_bound(fake: Any) -> None:
    bench = Bench(fake, LAB_LOG_KEEP="10", LAB_LOG_MAX="20")
    bench.upkeep()
    bench.write(100)
    bench.replica("slow", 1)
    bench.upkeep()
    assert (bench.first(), bench.log.history.length()) == ("1-81", 20)


@pytest.mark.parametrize(
    ("memory", "bound_bytes"),
    [
        (Memory(log_bytes=5, used_bytes=10, max_bytes=0), 2**20),
        (Memory(log_bytes=5, used_bytes=10, max_bytes=2**30), 2**20),
        (Memory(log_bytes=300_000, used_bytes=500_000, max_bytes=1_000_000), 600_000),
        (Memory(log_bytes=100_000, used_bytes=1_000_000, max_bytes=1_000_000), 0),
    ],
)
def test_the_log_can_use_the_configured_memory_but_no_more_than_its_server_has_left(
    fake: Any, memory: Memory, bound_bytes: int
) -> None:
    assert Bench(fake, LAB_LOG_MAX_BYTES=str(2**20)).retention.bound_bytes(memory) == bound_bytes


@pytest.mark.parametrize(("url", "rounds"), [("redis://h", 3), ("redis+sentinel://h/lab14", 1)])
def test_a_silent_replica_is_asked_again_only_if_its_answer_can_avoid_a_new_epoch(
    fake: Any, url: str, rounds: int
) -> None:
    peers = StubPeers(**{"a/applied": PeerError("gone", sent=False)})
    bench = Bench(fake, peers, LAB_REDIS_URL=url)
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 9)
    restart(bench, fake)
    bench.write_one()
    assert len(peers.asked) == rounds
    assert bench.log.head().position == Position(2, 11)


@pytest.mark.parametrize("answer", [{"delivered": "2-12"}, PeerError("gone", sent=False)])
def test_a_new_primary_continues_in_a_later_epoch_what_a_replica_has_left(fake: Any, answer: Any) -> None:
    """A former master that was not demoted is master again, and its log is verified."""
    Bench(fake).upkeep()
    bench = Bench(fake, StubPeers(**{"a/applied": answer}), LAB_REDIS_URL="redis+sentinel://h/lab14")
    bench.replica("a", 0)
    bench.write_one()
    assert bench.log.head().position == Position(3 if isinstance(answer, dict) else 1, 1)
    bench.upkeep()
    assert len(bench.parts.peers.asked) == 1


def test_a_new_primary_skips_the_numbers_of_epochs_that_a_silent_replica_can_have_seen(fake: Any) -> None:
    """The log can have lost the start of an epoch, together with the primary that started it."""
    first = Bench(fake)
    first.upkeep()
    first.write(10)
    bench = Bench(fake, StubPeers(**{"a/applied": PeerError("gone", sent=False)}))
    bench.replica("a", 9)
    restart(bench, fake)
    bench.write_one()
    assert bench.log.head().position == Position(11, 11)
    assert bench.published("epoch")[0]["reason"] == "a did not report what it had seen"
