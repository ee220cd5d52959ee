"""Faults and what they get at, without processes and without waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from broker.clock import LogClock
from broker.connection import Link, connect
from broker.errors import LogError, LogUnreachable
from broker.events import Events
from broker.log import ReplicationLog
from nodes.http.problem import Problem
from nodes.replica.audit import EVERY_SECONDS, Audit
from nodes.replica.faults import FAULTS, FaultBody, Parts
from nodes.replica.faults.active import ActiveFaults
from nodes.replica.metrics import ReplicaMetrics
from tests.support.logserver import LogServer
from tests.support.replica import REPLICA, Bench
from tests.support.until import until


class Broken:
    """A replica on a fake log server, and its faults."""

    def __init__(self, fake: Any, directory: Path) -> None:
        self.log = ReplicationLog(fake)
        self.log.open("o")
        self.bench = Bench(fake, directory)
        self.ended = threading.Event()
        self.events = Events(fake)
        self.registry = CollectorRegistry()
        self.metrics = ReplicaMetrics(self.registry, REPLICA, FAULTS)
        self.link = Link()
        self.clock = LogClock(self.log.history.now_us, lambda: 0, lambda: 10**15)
        parts = Parts(
            inbox=self.bench.inbox, reader=self.bench.reader, acknowledger=self.bench.acknowledger,
            store=self.bench.store, clock=self.clock, link=self.link, random=Random(1), end_process=self.ended.set,
        )  # fmt: skip
        self.faults = ActiveFaults(REPLICA, parts, self.events, self.metrics)

    def begin(self, **fault: Any) -> Any:
        return self.faults.begin(FaultBody.model_validate(fault).root)

    def write(self, count: int) -> None:
        for _ in range(count):
            version = self.log.head().position.version + 1
            self.log.append("set", f"k{version}", str(version), f"w{version}")


@pytest.fixture
def broken(fake: Any, tmp_path: Path) -> Iterator[Broken]:
    found = Broken(fake, tmp_path / "store")
    found.bench.catch_up()
    yield found
    found.faults.stop()
    found.bench.close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"fault": "nothing"},
        {"fault": "pause", "duration_ms": 0},
        {"fault": "pause", "rate": 1},
        {"fault": "crash", "duration_ms": 5},
        {"fault": "corrupt", "duration_ms": 5},
        {"fault": "slow_apply", "entries_per_second": 0},
        {"fault": "duplicate", "probability": 0},
        {"fault": "skew"},
    ],
)
def test_what_is_no_fault_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FaultBody.model_validate(body)


def test_paused_nothing_is_due_and_afterwards_everything_is(broken: Broken) -> None:
    broken.begin(fault="pause")
    broken.write(3)
    broken.bench.catch_up()
    assert (broken.bench.position(), len(broken.bench.inbox), broken.bench.pending()) == ("1-0", 3, 3)
    broken.faults.end("pause")
    broken.bench.catch_up()
    assert (broken.bench.position(), broken.bench.pending()) == ("1-3", 0)


def test_slowed_one_entry_is_applied_and_the_next_after_its_rest(broken: Broken) -> None:
    broken.begin(fault="slow_apply", entries_per_second=10)
    broken.write(3)
    broken.bench.read()
    broken.bench.clock.us = broken.log.history.now_us() + 1000
    assert broken.bench.applier.step() == 1
    assert broken.bench.applier.step() == 0
    broken.bench.clock.advance_ms(99)
    assert broken.bench.applier.step() == 0
    broken.bench.clock.advance_ms(1)
    assert broken.bench.applier.step() == 1
    broken.faults.end("slow_apply")
    assert broken.bench.apply() == 1


def test_delivered_again_nothing_is_applied_twice_and_everything_goes_on(broken: Broken) -> None:
    broken.begin(fault="duplicate")
    broken.write(3)
    broken.bench.catch_up()
    broken.write(2)
    broken.bench.catch_up()
    assert broken.bench.position() == "1-5"
    assert broken.bench.count("ec_redeliveries_total") == 5, "each once, and not again and again"
    assert broken.bench.count("ec_applied_total", result="applied") == 6  # and the epoch
    assert broken.bench.pending() == 0


def test_lost_acknowledgements_leave_pending_what_is_applied_until_it_ends(broken: Broken) -> None:
    broken.begin(fault="drop_ack")
    broken.write(3)
    broken.bench.catch_up()
    assert (broken.bench.position(), broken.bench.pending()) == ("1-3", 3)
    broken.faults.end("drop_ack")
    broken.bench.catch_up()
    assert broken.bench.pending() == 0


def test_a_skewed_clock_is_ahead_until_it_ends(broken: Broken) -> None:
    true_us = broken.clock.now_us()
    broken.begin(fault="skew", skew_ms=1500)
    assert broken.clock.now_us() == true_us + 1_500_000
    broken.begin(fault="skew", skew_ms=-1)
    assert broken.clock.now_us() == true_us - 1000
    broken.faults.end("skew")
    assert broken.clock.now_us() == true_us


def test_a_corrupt_value_keeps_its_version_and_only_the_audit_finds_it(broken: Broken) -> None:
    audit = Audit(broken.log, broken.bench.store, broken.metrics, lambda: 0.0)
    with pytest.raises(Problem) as refused:
        broken.begin(fault="corrupt")
    assert refused.value.status == 409
    assert broken.events.after("0-0", 1) == []
    broken.write(2)
    assert (audit.step(), audit.diverged) == (EVERY_SECONDS, False), "not at the same position yet"
    assert broken.registry.get_sample_value("ec_replica_diverged", {"replica": REPLICA}) is None
    broken.bench.catch_up()
    assert (audit.step(), audit.diverged) == (EVERY_SECONDS, False)
    broken.begin(fault="corrupt", key="k2")
    assert broken.bench.data() == {"k1": "1", "k2": '"corrupt"'}
    broken.begin(fault="corrupt", key="k2")
    assert broken.bench.position() == "1-2"
    audit.step()
    assert audit.diverged
    broken.bench.reader.want_resync()
    broken.bench.read()
    audit.step()
    assert (audit.diverged, broken.bench.data()["k2"]) == (False, "2")
    assert broken.bench.count("ec_resyncs_total", reason="requested") == 1


def test_an_audit_of_much_is_seldom(broken: Broken) -> None:
    times = iter([0.0, 3.0])
    assert Audit(broken.log, broken.bench.store, broken.metrics, lambda: next(times)).step() == 150


def test_a_crash_ends_the_process(broken: Broken) -> None:
    broken.begin(fault="crash")
    assert broken.ended.is_set()
    assert broken.faults.names() == ()


def test_what_begins_and_ends_is_shown_and_told(broken: Broken) -> None:
    shown = broken.begin(fault="drop_ack", probability=0.5, duration_ms=60_000)
    assert shown["parameters"] == {"probability": 0.5, "duration_ms": 60_000}
    assert broken.faults.names() == ("drop_ack",)
    assert set(broken.faults.show()["available"]) == set(FAULTS)
    assert broken.faults.end(None) == {"source": REPLICA, "ended": ["drop_ack"]}
    told = [(event.fields["kind"], event.fields["fault"]) for event in broken.events.after("0-0", 1)]
    assert told == [("fault", "drop_ack"), ("fault_ended", "drop_ack")]
    with pytest.raises(Problem) as refused:
        broken.faults.end("drop_ack")
    assert refused.value.status == 404


def test_it_ends_when_its_time_is_up_but_not_when_it_has_begun_anew(broken: Broken) -> None:
    broken.begin(fault="pause", duration_ms=50)
    broken.clock.set_skew(1)  # so that the second one begins at another time
    broken.begin(fault="pause")
    broken.begin(fault="drop_ack", duration_ms=50)
    until(lambda: broken.faults.names() == ("pause",))
    broken.faults._time_is_up("pause", 0)  # the first one's, which was waiting for the lock
    assert broken.faults.names() == ("pause",)


def test_a_cut_link_breaks_who_waits_and_refuses_who_comes(server: LogServer) -> None:
    link = Link()
    log = ReplicationLog(connect(server.url, answer_timeout_seconds=30, link=link))
    log.open("o")
    log.group(REPLICA).join(log.head().position)
    failures: list[Exception] = []

    def wait() -> None:
        try:
            log.group(REPLICA).read(1, 20_000)
        except LogError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    other = ReplicationLog(connect(server.url))
    watching = connect(server.url)
    until(lambda: int(watching.info("clients")["blocked_clients"]) > 0)
    link.cut()
    waiting.join(10)
    assert len(failures) == 1
    with pytest.raises(LogUnreachable, match="cut"):
        log.history.now_us()
    assert other.history.now_us() > 0, "only this link is cut"
    link.mend()
    assert log.history.now_us() > 0
