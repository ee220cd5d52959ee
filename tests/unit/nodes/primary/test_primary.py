"""The primary's upkeep: opening, trimming, forgetting; and delays."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.clock import LogClock
from broker.delay import Fixed
from broker.errors import LogRefused
from broker.events import Events
from broker.log import Memory, ReplicationLog
from broker.position import START, Position
from broker.registry import Member, Registry, Settings
from nodes.http.peers import PeerError, Peers
from nodes.primary.delays import DelayBody, Delays, DelaysBody, UnknownReplica
from nodes.primary.metrics import ReplicaCollector
from nodes.primary.primary import FORGET_AFTER_SECONDS, Primary
from nodes.primary.upkeep import Retention, Verification
from nodes.primary.writes import Acceptance
from nodes.runtime.gate import State
from tests.support.peers import StubPeers
from tests.support.primary import make_parts


class Bench:
    """A primary on a fake log server, whose upkeep is stepped by hand."""

    def __init__(self, client: Any, peers: Peers | None = None, **environment: str) -> None:
        self.log, self.registered, self.events = ReplicationLog(client), Registry(client), Events(client)
        self.now_us = self.log.now_us()
        self.registry = CollectorRegistry()
        parts = make_parts(
            self.log,
            self.registry,
            environment,
            registered=self.registered,
            events=self.events,
            clock=LogClock(lambda: self.now_us, lambda: 0, lambda: 0),
            **({} if peers is None else {"peers": peers}),
        )
        self.gate = parts.gate
        times = iter(range(10**6))
        verification = Verification(parts, monotonic=lambda: float(next(times)), pause=lambda _: None)
        self.now_seconds = 0.0
        self.acceptance = Acceptance(self.log, parts.metrics, lambda: self.now_seconds)
        self.retention = Retention(self.log, parts.config)
        self.log.verify, self.log.make_room = verification.require, self.retention.shrink
        self.primary = Primary(parts, verification, self.retention, self.acceptance.require)
        self.delays = Delays(parts)
        self.primary._upkeep.stop()  # so that its pause does not wait

    def upkeep(self) -> None:
        self.primary._step()

    def write(self, count: int) -> None:
        for _ in range(count):
            version = self.log.head().position.version + 1
            self.log.append("set", "k", str(version), f"w{version}")

    def write_one(self) -> None:
        self.log.append("set", "k", "1", "one more")

    def published(self, kind: str) -> list[dict[str, str]]:
        found = self.events.after("0-0", 1, 100) if self.events.last_id() != "0-0" else []
        return [event.fields for event in found if event.fields["kind"] == kind]

    def replica(self, name: str, version: int, seen_seconds_ago: float = 0) -> None:
        seen_at_us = round(self.now_us - seen_seconds_ago * 1e6)
        member = Member(name, f"http://{name}:8001", f"http://{name}", Position(1, version), seen_at_us, 0)
        self.registered.heartbeat(member, Settings(Fixed(500), 0))

    def first(self) -> str:
        (entry,) = self.log.after(START, 1)
        return str(entry.position)


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


def restarted(bench: Bench, client: Any) -> None:
    """The log server was started again: it has forgotten its scripts."""
    client.script_flush()
    assert not bench.log.is_verified()


def delivered(**positions: str) -> StubPeers:
    return StubPeers(**{f"{name}/applied": {"delivered": position} for name, position in positions.items()})


def test_a_restarted_log_server_that_has_everything_continues_in_its_epoch(fake: Any) -> None:
    bench = Bench(fake, delivered(a="1-10", b="1-7"))
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 9)
    bench.replica("b", 7)
    restarted(bench, fake)
    bench.write_one()
    assert bench.log.head().position == Position(1, 11)
    assert bench.published("epoch") == []


def test_a_log_behind_a_replica_continues_in_a_new_epoch_before_the_next_write(fake: Any) -> None:
    bench = Bench(fake, delivered(a="1-12", b="1-7"))
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 9)
    bench.replica("b", 7)
    restarted(bench, fake)
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
    restarted(bench, fake)
    bench.write_one()
    assert bench.log.head().position == Position(2, 11)
    assert bench.published("epoch")[0]["reason"] == "a did not report what it had seen"


def test_a_log_whose_damaged_end_was_dropped_continues_in_a_new_epoch_even_if_no_node_has_seen_more(fake: Any) -> None:
    bench = Bench(fake, delivered(a="1-7"))
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 7)
    fake.hset("lab14:head", "doubt", 1)
    restarted(bench, fake)
    bench.write_one()
    assert bench.log.head().position == Position(2, 11)
    assert bench.published("epoch")[0]["reason"] == "the damaged end of its file was dropped"
    restarted(bench, fake)
    bench.upkeep()
    assert bench.log.head().position == Position(2, 11)


def test_the_primary_waits_for_a_replica_that_is_just_starting(fake: Any) -> None:
    peers = StubPeers(**{"a/applied": [PeerError("not yet", sent=False), {"delivered": "1-10"}]})
    bench = Bench(fake, peers)
    bench.upkeep()
    bench.write(10)
    bench.replica("a", 9)
    restarted(bench, fake)
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
    restarted(bench, fake)
    assert bench.primary.health()["log"] == "asking the replicas whether it has everything"
    bench.upkeep()
    assert bench.log.head().position == Position(2, 8)
    assert bench.primary.health() == {"log": "ok", "writes": "ok"}


def test_health_reports_that_writes_are_refused(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.write(1)
    bench.acceptance.failed(LogRefused("the log server refused: no"))
    assert bench.primary.health() == {"log": "ok", "writes": "the log server refused: no"}
    bench.now_seconds = 2
    assert bench.primary.health()["writes"] == "ok"
    bench.acceptance.failed(LogRefused("the log server refused: no"))
    bench.acceptance.acknowledged()
    assert bench.primary.health()["writes"] == "ok"
    fake.xadd("lab14:log", {"other": "1"})
    assert "not of this lab" in bench.primary.health()["writes"]


def test_health_reports_that_the_log_server_may_drop_entries(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(fake)
    bench.upkeep()
    monkeypatch.setattr(bench.log, "hazard", lambda: "it may drop entries")
    assert bench.primary.health() == {"log": "it may drop entries", "writes": "ok"}


def test_writes_are_accepted_again_in_an_epoch_after_a_foreign_entry(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.write(2)
    name = fake.xadd("lab14:log", {"hello": "world"})
    assert "not of this lab" in bench.primary.health()["writes"]
    bench.upkeep()
    assert bench.primary.health() == {"log": "ok", "writes": "ok"}
    assert bench.published("epoch")[0]["reason"] == f"the entry {name} is not of this lab"
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


def test_a_reset_after_a_lost_reset_reuses_none_of_its_positions(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.gate.advance(State(Position(4, 7), "w", 1))
    restarted(bench, fake)
    bench.primary.reset()
    assert bench.log.head().position.epoch > 4


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
    assert (bench.first(), bench.log.length()) == ("1-81", 20)


@pytest.mark.parametrize(
    ("memory", "bound_bytes"),
    [
        (Memory(log_bytes=5, used_bytes=10, max_bytes=0), 2**20),
        (Memory(log_bytes=5, used_bytes=10, max_bytes=2**30), 2**20),
        (Memory(log_bytes=300_000, used_bytes=500_000, max_bytes=1_000_000), 600_000),
        (Memory(log_bytes=100_000, used_bytes=1_000_000, max_bytes=1_000_000), 0),
    ],
)
def test_the_log_may_take_the_configured_memory_but_no_more_than_its_server_has_left(
    fake: Any, memory: Memory, bound_bytes: int
) -> None:
    assert Bench(fake, LAB_LOG_MAX_BYTES=str(2**20)).retention.bound_bytes(memory) == bound_bytes


def test_a_replica_that_never_comes_back_is_forgotten_with_its_group(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.replica("gone", 0, seen_seconds_ago=FORGET_AFTER_SECONDS + 1)
    bench.log.join("gone", START)
    bench.upkeep()
    assert bench.registered.members() == []
    assert bench.log.groups() == []


def test_nothing_is_exported_about_replicas_while_the_log_cannot_be_read(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    collector = ReplicaCollector(bench.log, bench.registered, bench.retention.usage)
    assert list(collector.collect()) == []
    bench.upkeep()
    assert "ec_replica_lag_seconds" in {family.name for family in collector.collect()}


def test_the_time_of_the_last_apply_is_absent_while_unknown(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.replica("a", 0)
    bench.registry.register(ReplicaCollector(bench.log, bench.registered, bench.retention.usage))
    labels = {"replica": "a"}
    assert bench.registry.get_sample_value("ec_replica_lag_seconds", labels) == 0
    assert bench.registry.get_sample_value("ec_replica_last_applied_timestamp_seconds", labels) is None


def test_a_change_of_a_delay_is_applied_and_published(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    found = bench.delays.change(DelayBody(replica="a", delay_ms=7, ack_delay_ms=3))
    assert (found["replica_url"], found["delay_ms"], found["all_delays"]) == ("http://a:8001", 7, {"http://a:8001": 7})
    assert bench.registered.settings() == {"a": Settings(Fixed(7), 3)}
    assert [event.fields["kind"] for event in bench.events.after("0-0", 1)] == ["settings"]


def test_a_change_of_the_acknowledgement_delay_keeps_the_delay(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    bench.delays.change(DelayBody(replica="a", ack_delay_ms=3))
    assert bench.registered.settings() == {"a": Settings(Fixed(500), 3)}


def test_of_several_delays_none_is_changed_if_one_is_wrong(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    with pytest.raises(UnknownReplica):
        bench.delays.change_several(DelaysBody(delays={"a": 1, "b": 2}))
    assert bench.registered.settings() == {"a": Settings(Fixed(500), 0)}


def test_prometheus_finds_every_registered_replica(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    assert bench.primary.scrape_targets() == [{"targets": []}]
    bench.replica("lab14-replica1", 0)
    bench.replica("lab14-replica2", 0)
    assert bench.primary.scrape_targets() == [{"targets": ["lab14-replica1", "lab14-replica2"]}]


def test_the_time_of_the_last_change_is_exported(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.replica("lab14-replica1", 0)
    bench.delays.change(DelayBody(replica="lab14-replica1", delay_ms=7))
    bench.primary.reset()
    name, now = "ec_config_change_timestamp_seconds", bench.now_us / 1e6
    assert bench.registry.get_sample_value(name, {"replica": "lab14-replica1", "kind": "delay"}) == now
    assert bench.registry.get_sample_value(name, {"replica": "", "kind": "reset"}) == pytest.approx(now)
