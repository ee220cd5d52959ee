"""The faults and their effects, without processes and without waiting."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from broker.address import parse
from broker.connection import Link, connect
from broker.errors import LogError, LogUnreachable
from broker.log import ReplicationLog
from nodes.replica.faults import FAULTS, Fault, FaultBody, FaultNotActive, NothingToCorrupt
from nodes.replica.upkeep import AUDIT_SECONDS
from tests.support.logserver import LogServer
from tests.support.replica import REPLICA, Broken
from tests.support.until import until


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
def test_an_invalid_fault_is_rejected(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FaultBody.model_validate(body)


@pytest.mark.parametrize("kind", FAULTS.values())
def test_every_fault_documents_itself_with_a_valid_example(kind: type[Fault]) -> None:
    schema = kind.model_json_schema()
    assert schema["description"]
    assert FaultBody.model_validate(schema["examples"][0]).root == kind(fault=kind.name(), **kind.example)
    for name, values in kind.drawn.items():
        for value in values:
            kind.model_validate({"fault": kind.name(), **kind.example, name: value})


def test_pause_makes_nothing_due_until_it_ends(broken: Broken) -> None:
    broken.start(fault="pause")
    broken.write(3)
    broken.bench.catch_up()
    assert (broken.bench.position(), len(broken.bench.inbox), broken.bench.pending()) == ("1-0", 3, 3)
    broken.faults.end("pause")
    broken.bench.catch_up()
    assert (broken.bench.position(), broken.bench.pending()) == ("1-3", 0)


def test_slow_apply_applies_one_entry_and_the_next_after_a_pause(broken: Broken) -> None:
    broken.start(fault="slow_apply", entries_per_second=10)
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


def test_duplicate_delivers_again_but_nothing_is_applied_twice(broken: Broken) -> None:
    broken.start(fault="duplicate")
    broken.write(3)
    broken.bench.catch_up()
    broken.write(2)
    broken.bench.catch_up()
    assert broken.bench.position() == "1-5"
    assert broken.bench.count("ec_redeliveries_total") == 5, "each once, and not again and again"
    assert broken.bench.count("ec_applied_total", result="applied") == 6  # and the epoch
    assert broken.bench.pending() == 0


def test_drop_ack_leaves_applied_entries_pending_until_it_ends(broken: Broken) -> None:
    broken.start(fault="drop_ack")
    broken.write(3)
    broken.bench.catch_up()
    assert (broken.bench.position(), broken.bench.pending()) == ("1-3", 3)
    broken.faults.end("drop_ack")
    broken.bench.catch_up()
    assert broken.bench.pending() == 0


def test_a_skewed_clock_is_ahead_until_it_ends(broken: Broken) -> None:
    true_us = broken.clock.now_us()
    broken.start(fault="skew", skew_ms=1500)
    assert broken.clock.now_us() == true_us + 1_500_000
    broken.start(fault="skew", skew_ms=-1)
    assert broken.clock.now_us() == true_us - 1000
    broken.faults.end("skew")
    assert broken.clock.now_us() == true_us


def test_a_corrupt_value_keeps_its_version_and_only_the_audit_finds_it(broken: Broken) -> None:
    audit = broken.audit()
    with pytest.raises(NothingToCorrupt):
        broken.start(fault="corrupt")
    assert broken.events.after("0-0", 1) == []
    broken.write(2)
    assert (audit.step(), audit.diverged) == (AUDIT_SECONDS, False), "not at the same position yet"
    assert broken.bench.registry.get_sample_value("ec_replica_diverged", {"replica": REPLICA}) is None
    broken.bench.catch_up()
    assert (audit.step(), audit.diverged) == (AUDIT_SECONDS, False)
    broken.start(fault="corrupt", key="k2")
    assert broken.bench.data() == {"k1": "1", "k2": '"corrupt"'}
    broken.start(fault="corrupt", key="k2")
    assert broken.bench.position() == "1-2"
    audit.step()
    assert audit.diverged
    broken.bench.parts.resync_requested.set()
    broken.bench.read()
    audit.step()
    assert (audit.diverged, broken.bench.data()["k2"]) == (False, "2")
    assert broken.bench.count("ec_resyncs_total", reason="requested") == 1


def test_a_crash_ends_the_process(broken: Broken) -> None:
    broken.start(fault="crash")
    assert broken.ended.is_set()
    assert broken.faults.names() == ()


def test_a_cut_link_breaks_waiting_commands_and_rejects_new_ones(server: LogServer) -> None:
    link = Link(parse(server.url))
    log = ReplicationLog(connect(link, answer_timeout_seconds=30))
    log.open("o")
    log.group(REPLICA).join(log.head().position)
    other, watching = ReplicationLog(connect(server.url)), connect(server.url)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(log.group(REPLICA).read, 1, 20_000)
        until(lambda: int(watching.info("clients")["blocked_clients"]) > 0)
        link.cut()
        with pytest.raises(LogError):
            waiting.result(10)
    with pytest.raises(LogUnreachable, match="cut"):
        log.history.now_us()
    assert other.history.now_us() > 0, "only this link is cut"
    link.mend()
    assert log.history.now_us() > 0


def test_a_fault_that_starts_and_ends_is_shown_and_reported(broken: Broken) -> None:
    shown = broken.start(fault="drop_ack", probability=0.5, duration_ms=60_000)
    assert shown["parameters"] == {"probability": 0.5, "duration_ms": 60_000}
    assert broken.faults.names() == ("drop_ack",)
    assert broken.faults.show() == [shown]
    assert broken.faults.end(None) == ["drop_ack"]
    told = [(event.fields["kind"], event.fields["fault"]) for event in broken.events.after("0-0", 1)]
    assert told == [("fault", "drop_ack"), ("fault_ended", "drop_ack")]
    with pytest.raises(FaultNotActive):
        broken.faults.end("drop_ack")


def test_a_fault_ends_after_its_duration_unless_it_was_restarted(broken: Broken) -> None:
    broken.start(fault="pause", duration_ms=50)
    broken.clock.set_skew(1)  # so that the second one starts at another time
    broken.start(fault="pause")
    broken.start(fault="drop_ack", duration_ms=50)
    until(lambda: broken.faults.names() == ("pause",))
    broken.faults._time_is_up("pause", 0)  # the first one's timer, which was waiting for the lock
    assert broken.faults.names() == ("pause",)
