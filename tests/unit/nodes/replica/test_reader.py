"""Reading and applying: each entry once, in order, never early, whatever happens in between."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from broker.delay.line import Schedule
from broker.delay.models import Fixed, Order, Uniform
from broker.entry import Entry
from broker.errors import LogBehind, LogMissing, LogUnreachable
from broker.group import Group
from broker.log import ReplicationLog
from broker.position import START, Position
from nodes.replica import store
from nodes.replica.reader import Arrival, classify
from nodes.runtime.store import StoreError
from tests.support.replica import REPLICA, Bench

Make = Callable[..., Bench]
Patch = pytest.MonkeyPatch


@pytest.mark.parametrize(
    ("last", "position", "op", "value", "expected"),
    [
        ("1-4", "1-5", "set", "1", Arrival.NEXT),
        ("1-4", "2-0", "epoch", "", Arrival.NEXT),
        ("1-4", "3-0", "epoch", "", Arrival.NEXT),
        ("0-0", "1-0", "epoch", "", Arrival.NEXT),
        ("1-4", "1-4", "set", "1", Arrival.REPEATED),
        ("1-4", "1-3", "delete", "", Arrival.REPEATED),
        ("2-0", "1-9", "set", "1", Arrival.REPEATED),
        ("2-4", "2-4", "epoch", '"1-4"', Arrival.REPEATED),
        ("1-4", "1-6", "set", "1", Arrival.GAP),
        ("1-4", "2-1", "set", "1", Arrival.GAP),
        ("1-4", "2-5", "epoch", '"1-5"', Arrival.GAP),
        ("1-4", "2-4", "epoch", '"1-4"', Arrival.CONTINUATION),
        ("1-4", "2-3", "epoch", '"1-3"', Arrival.CONTINUATION),
    ],
)
def test_an_entry_is_classified(last: str, position: str, op: Any, value: str, expected: Arrival) -> None:
    entry = Entry(Position.parse(position), op, "k", value, "w", 1)
    assert classify(Position.parse(last), entry) is expected


@pytest.fixture
def log(fake: Any) -> ReplicationLog:
    found = ReplicationLog(fake)
    found.open("o")
    return found


@pytest.fixture
def make(fake: Any, tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def start(**options: Any) -> Bench:
        """A replica's process; starting it again ends the previous one without acknowledging anything."""
        if made:
            made.pop().close()
        made.append(Bench(fake, tmp_path / "store", **options))
        return made[-1]

    yield start
    for bench in made:
        bench.close()


def write(log: ReplicationLog, *keys: str) -> None:
    for key in keys:
        version = log.head().position.version + 1
        log.append("set", key, str(version), f"w{log.head().position.epoch}-{version}")


def test_entries_are_applied_in_order_with_the_position(log: ReplicationLog, make: Make) -> None:
    write(log, "a", "b", "a")
    bench = make().catch_up()
    assert (bench.position(), bench.data()) == ("1-3", {"a": "3", "b": "2"})
    assert list(map(str, (applied.position for applied in bench.history.after(START, 10)))) == [
        "1-0",
        "1-1",
        "1-2",
        "1-3",
    ]
    assert bench.pending() == 0


def test_nothing_is_applied_before_it_is_due_and_it_is_pending_until_then(log: ReplicationLog, make: Make) -> None:
    bench = make(delay_ms=500).catch_up()
    write(log, "a")
    bench.read()
    published_us = log.history.newest(1)[0].at_us
    bench.clock.us = published_us + 499_999
    assert (bench.apply(), bench.position(), bench.pending()) == (0, "1-0", 1)
    bench.clock.us = published_us + 500_000
    assert (bench.apply(), bench.position(), bench.pending()) == (1, "1-1", 1)
    bench.acknowledge()
    assert bench.pending() == 0


def test_the_acknowledgement_can_be_held_back(log: ReplicationLog, make: Make) -> None:
    write(log, "a")
    bench = make()
    bench.acknowledger.set_schedule(Schedule(Fixed(2000)))
    bench.catch_up()
    assert (bench.position(), bench.pending()) == ("1-1", 2)
    bench.clock.advance_ms(1000)  # the fake server's clock, and with it the moment of the apply, is a real one
    bench.acknowledge()
    assert bench.pending() == 2
    bench.clock.advance_ms(1000)
    bench.acknowledge()
    assert bench.pending() == 0


def test_a_kill_between_apply_and_acknowledgement_changes_nothing(log: ReplicationLog, make: Make) -> None:
    write(log, "a", "b")
    before = make()
    before.read()
    before.clock.us = log.history.now_us()
    assert before.apply() == 3
    after = make()
    after.read()
    assert after.apply() == 0
    after.acknowledge()
    assert (after.position(), after.pending()) == ("1-2", 0)
    assert after.count("ec_applied_total", result="duplicate") == 3
    assert after.count("ec_redeliveries_total") == 3


def test_a_replica_killed_before_applying_takes_its_pending_entries_first(log: ReplicationLog, make: Make) -> None:
    write(log, "a", "b")
    make().read()
    write(log, "c")
    after = make().catch_up()
    assert (after.position(), after.data(), after.pending()) == ("1-3", {"a": "1", "b": "2", "c": "3"}, 0)


def test_entries_of_a_lost_reply_are_read_again(log: ReplicationLog, make: Make, monkeypatch: Patch) -> None:
    bench = make().catch_up()
    write(log, "a", "b")
    read = Group.read

    def lose(group: Group, count: int, block_ms: int) -> Any:
        read(group, 1, block_ms)
        raise LogUnreachable("the reply never came")

    with monkeypatch.context() as patched:
        patched.setattr(Group, "read", lose)
        with pytest.raises(LogUnreachable):
            bench.read()
    bench.catch_up()
    assert (bench.position(), bench.pending()) == ("1-2", 0)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_foreign_entry_is_skipped(fake: Any, log: ReplicationLog, make: Make, restarted: bool) -> None:
    write(log, "a")
    bench = make().catch_up()
    fake.xadd("lab14:log", {"hello": "world"})
    if not restarted:
        bench.catch_up()
    foreign = log.history.foreign()
    assert foreign is not None
    log.open("behind it", seen=foreign)
    write(log, "b")
    bench = make() if restarted else bench
    bench.catch_up()
    assert (bench.position(), bench.pending()) == (f"{foreign.epoch + 1}-2", 0)
    assert bench.data() == {"a": "1", "b": "2"}
    assert bench.count("ec_resyncs_total", reason="gap") == 0


def test_a_foreign_entry_that_leaves_no_room_requires_a_snapshot(fake: Any, log: ReplicationLog, make: Make) -> None:
    write(log, "a")
    bench = make().catch_up()
    write(log, "b")
    fake.xadd("lab14:log", {"hello": "world"}, id="18446744073709551615-1")
    fake.delete("lab14:log")
    write(log, "c")
    with pytest.raises(LogMissing):  # its group is gone
        bench.read()
    bench.catch_up()
    assert (bench.position(), bench.data(), bench.pending()) == ("1-3", {"a": "1", "b": "2", "c": "3"}, 0)


def test_a_gap_is_closed_by_reading_again_from_before_it(log: ReplicationLog, make: Make) -> None:
    bench = make().catch_up()
    write(log, "a", "b", "c")
    log.group(REPLICA).rewind(Position(1, 2))  # as if the store had lost a tail that was acknowledged
    bench.catch_up()
    assert (bench.position(), bench.pending()) == ("1-3", 0)
    assert bench.count("ec_resyncs_total", reason="gap") == 0


def test_a_gap_after_which_nothing_was_written_is_closed_by_a_snapshot(log: ReplicationLog, make: Make) -> None:
    log.append("set", "k", "1", "w1")
    bench = make().catch_up()
    log.append("set", "k", "2", "w2")
    log.trim(Position(1, 2))
    bench.catch_up()
    assert bench.position() == "1-2"
    assert bench.count("ec_resyncs_total", reason="gap") == 1


def test_a_gap_that_the_log_cannot_close_is_closed_by_a_snapshot(log: ReplicationLog, make: Make) -> None:
    write(log, "old")
    bench = make().catch_up()
    write(log, "a", "b", "c")
    log.trim(Position(1, 3))
    bench.catch_up()
    assert (bench.position(), bench.pending()) == ("1-4", 0)
    assert bench.data() == {"old": "1", "a": "2", "b": "3", "c": "4"}
    assert bench.count("ec_resyncs_total", reason="gap") == 1
    write(log, "d")
    bench.catch_up()
    assert bench.position() == "1-5"


def test_pending_entries_that_were_trimmed_lead_to_a_snapshot(log: ReplicationLog, make: Make) -> None:
    write(log, "a", "b")
    make().read()
    log.trim(Position(1, 2))
    write(log, "c")
    after = make().catch_up()
    assert (after.position(), after.data(), after.pending()) == ("1-3", {"a": "1", "b": "2", "c": "3"}, 0)


def test_the_acknowledged_position_is_known_once_a_gap_before_pending_entries_is_closed(
    log: ReplicationLog, make: Make
) -> None:
    write(log, "a", "b")
    group = log.group(REPLICA)
    group.join(START)
    group.read(3, 1)
    group.acknowledge([Position(1, 0), Position(1, 1)])  # by a process whose store is lost
    bench = make().catch_up()
    assert bench.position() == "1-2"
    assert bench.acknowledger.position == Position(1, 2)


def test_trimmed_pending_entries_are_not_acknowledged_although_the_log_continues_in_a_later_epoch(
    log: ReplicationLog, make: Make
) -> None:
    write(log, "a", "b")
    make().read()
    log.open("continued", Position(1, 2), in_doubt=True)
    log.trim(Position(1, 2))
    after = make()
    acknowledged: list[Position] = []
    after.acknowledger.discard = acknowledged.extend  # type: ignore[method-assign]
    after.read()
    assert (after.position(), acknowledged) == ("0-0", [])


def test_a_snapshot_is_not_shown_before_it_is_due(log: ReplicationLog, make: Make) -> None:
    bench = make(delay_ms=500)
    write(log, "a", "b")
    log.trim(Position(1, 1))
    published_us = log.history.newest(1)[0].at_us
    held: list[int] = []

    def hold(entry: Any) -> bool:
        held.append(bench.inbox._line.due_us(entry))
        return True

    bench.inbox.hold = hold  # type: ignore[method-assign]
    bench.read()
    bench.read()
    assert held == [published_us + 500_000]
    assert bench.position() == "1-2"


def roll_back(fake: Any, log: ReplicationLog, lost: int) -> None:
    """Remove the newest entries from the log, like a server that restarts with an older copy."""
    for entry in log.history.newest(lost):
        fake.xdel("lab14:log", str(entry.position))
    version = log.head().position.version - lost
    fake.hset("lab14:head", "version", version)


class Late(Schedule):
    """An hour for ``1-2``, and nothing for every other entry."""

    def delay_us(self, position: Position) -> int:
        return 3_600_000_000 if position == (1, 2) else 0


def applied_beyond(log: ReplicationLog, make: Make) -> Bench:
    """A replica in order of arrival that has applied ``1-3`` without ``1-2``, restarted."""
    write(log, "a", "b", "c")
    bench = make()
    bench.inbox.set_schedule(Late(Uniform(0, 1), "arrival"))
    bench.catch_up()
    assert (bench.position(), bench.data()) == ("1-1", {"a": "1", "c": "3"})
    return make()


def test_a_replica_has_seen_what_it_has_applied_beyond_its_position(log: ReplicationLog, make: Make, fake: Any) -> None:
    after = applied_beyond(log, make)
    roll_back(fake, log, 2)
    assert after.reader.state.delivered == Position(1, 3)
    with pytest.raises(LogBehind, match="1-1, before 1-3"):
        after.read()


def test_what_was_applied_beyond_the_position_goes_if_the_log_has_lost_it(
    log: ReplicationLog, make: Make, fake: Any
) -> None:
    after = applied_beyond(log, make)
    fake.hdel("lab14:data", "b", "c")
    roll_back(fake, log, 2)
    log.open("p", Position(1, 3))
    after.catch_up()
    assert (after.position(), after.data()) == ("2-1", {"a": "1"})
    assert after.count("ec_resyncs_total", reason="log_rolled_back") == 1


def test_while_the_log_is_behind_a_replica_reads_nothing_of_it(log: ReplicationLog, make: Make, fake: Any) -> None:
    write(log, "a", "b", "c")
    make().catch_up()
    roll_back(fake, log, 2)
    after = make()
    with pytest.raises(LogBehind, match="1-1, before 1-3"):
        after.read()
    assert (after.position(), after.data()) == ("1-3", {"a": "1", "b": "2", "c": "3"})


@pytest.mark.parametrize("delivered", [0, 2])
def test_a_replica_ahead_of_the_log_takes_the_new_epochs_content(
    log: ReplicationLog, make: Make, fake: Any, delivered: int
) -> None:
    """``delivered``: to a process that was killed before it could replace the content."""
    write(log, "a", "b", "c")
    make().catch_up()
    fake.hdel("lab14:data", "b", "c")
    roll_back(fake, log, 2)
    log.open("o2", seen=Position(1, 3))
    log.append("set", "d", "9", "new")
    assert len(log.group(REPLICA).read(delivered, 1) if delivered else []) == delivered
    after = make().catch_up()
    assert (after.position(), after.data(), after.pending()) == ("2-2", {"a": "1", "d": "9"}, 0)
    assert after.count("ec_resyncs_total", reason="log_rolled_back") == 1


def test_waiting_entries_of_a_lost_tail_do_not_stay(log: ReplicationLog, make: Make, fake: Any) -> None:
    bench = make(delay_ms=60_000).catch_up()
    write(log, "a", "b", "c")
    bench.read()
    fake.hdel("lab14:data", "b", "c")
    roll_back(fake, log, 2)
    assert bench.reader.state.last == Position(1, 3)
    log.open("o2", seen=bench.reader.state.last)
    bench.clock.advance_ms(120_000)
    bench.catch_up()
    assert (bench.position(), bench.data()) == ("2-1", {"a": "1"})


def test_a_replica_that_has_no_more_than_the_log_keeps_its_content(log: ReplicationLog, make: Make) -> None:
    write(log, "a", "b")
    bench = make().catch_up()
    log.open("o2", in_doubt=True)
    write(log, "c")
    bench.catch_up()
    assert (bench.position(), bench.data()) == ("2-3", {"a": "1", "b": "2", "c": "3"})
    assert bench.pending() == 0
    assert sum(bench.count("ec_resyncs_total", reason=reason) for reason in ("gap", "log_rolled_back")) == 0
    assert make().position() == "2-3"


def test_a_new_epoch_waits_for_all_earlier_entries(log: ReplicationLog, make: Make, monkeypatch: Patch) -> None:
    bench = make(delay_ms=60_000).catch_up()
    write(log, "a")
    log.open("o2", in_doubt=True)
    waited: list[int] = []

    def apply_all() -> bool:
        waited.append(len(bench.inbox))
        bench.clock.advance_ms(120_000)
        bench.apply()
        return True

    monkeypatch.setattr(bench.inbox, "wait_until_empty", apply_all)
    bench.read()
    assert (waited, bench.position(), bench.data()) == ([1], "2-1", {"a": "1"})


def test_a_replica_of_another_history_takes_the_content_of_this_one(log: ReplicationLog, make: Make, fake: Any) -> None:
    write(log, "a", "b")
    make().catch_up()
    fake.flushall()
    log.open("o")
    for number in range(5):
        log.append("set", "x", str(number), f"new{number}")
    after = make().catch_up()
    assert (after.position(), after.data()) == ("1-5", {"x": "4"})
    assert after.count("ec_resyncs_total", reason="other_history") == 1


@pytest.mark.parametrize("order", ["log", "arrival"])
def test_a_snapshot_that_cannot_be_installed_changes_nothing(
    log: ReplicationLog, make: Make, monkeypatch: Patch, order: Order
) -> None:
    write(log, "a", "b", "c")
    bench = make(delay_ms=100)
    bench.inbox.set_schedule(Late(Uniform(0, 1), order) if order == "arrival" else Schedule(Fixed(100)))
    bench.read()
    if order == "arrival":
        bench.apply()
        assert bench.data() == {"a": "1", "c": "3"}
    bench.clock.advance_ms(60_000)
    bench.parts.resync_requested.set()
    with monkeypatch.context() as full:
        full.setattr(store, "_move", Mock(side_effect=sqlite3.OperationalError("database or disk is full")))
        with pytest.raises(StoreError, match="full"):
            bench.read()
    bench.inbox.set_schedule(Schedule(Fixed(100)))
    bench.apply()
    assert (bench.position(), bench.data()) == ("1-3", {"a": "1", "b": "2", "c": "3"})


def test_a_replica_reports_that_it_resyncs(log: ReplicationLog, make: Make) -> None:
    bench = make()
    write(log, "a")
    said: list[str] = []
    bench.inbox.hold = lambda _: bool(said.append(bench.reader.state.resyncing)) or True  # type: ignore[method-assign]
    bench.parts.resync_requested.set()
    bench.read()
    assert (said, bench.reader.state.resyncing) == (["requested"], "")


def test_a_reset_empties_the_store_at_once_and_drops_waiting_entries(log: ReplicationLog, make: Make) -> None:
    bench = make(delay_ms=60_000).catch_up()
    write(log, "a", "b")
    bench.read()
    log.reset("r")
    write(log, "new")
    bench.read()
    bench.clock.us = log.history.now_us()
    bench.apply()
    bench.acknowledge()
    assert (bench.position(), bench.data()) == ("2-0", {})
    assert bench.pending() == 1
    bench.clock.advance_ms(60_000)
    bench.apply()
    assert (bench.position(), bench.data()) == ("2-1", {"new": "1"})


def test_a_replica_that_missed_resets_continues_in_the_newest_epoch(log: ReplicationLog, make: Make) -> None:
    write(log, "a")
    make().catch_up()
    log.reset("r1")
    write(log, "b")
    log.reset("r2")
    write(log, "c")
    after = make().catch_up()
    assert (after.position(), after.data(), after.pending()) == ("3-1", {"c": "1"}, 0)


def test_pending_entries_of_an_ended_epoch_are_not_a_gap(log: ReplicationLog, make: Make) -> None:
    write(log, "a", "b")
    make(delay_ms=60_000).read()
    log.reset("r")
    after = make().catch_up()
    assert (after.position(), after.pending()) == ("2-0", 0)
    assert after.count("ec_resyncs_total", reason="gap") == 0


def test_entries_that_do_not_fit_into_the_line_stay_in_the_stream(log: ReplicationLog, make: Make) -> None:
    write(log, *"abcdef")
    bench = make(room=3)
    bench.read()
    assert (len(bench.inbox), bench.pending()) == (3, 3)
    bench.clock.us = log.history.now_us()
    bench.apply()
    bench.catch_up()
    assert bench.position() == "1-6"


def test_a_store_that_refuses_keeps_entries_pending(log: ReplicationLog, make: Make, monkeypatch: Patch) -> None:
    bench = make()
    write(log, "a")
    bench.read()
    bench.clock.us = log.history.now_us()

    def full(_: Any) -> Any:
        raise StoreError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(bench.store, "apply", full)
        with pytest.raises(StoreError):
            bench.apply()
    bench.acknowledge()
    assert (len(bench.inbox), bench.pending(), bench.count("ec_applied_total", result="error")) == (2, 2, 1)
    bench.catch_up()
    assert (bench.position(), bench.pending()) == ("1-1", 0)


@pytest.mark.parametrize("trimmed", [False, True])
def test_a_damaged_store_is_recovered(log: ReplicationLog, make: Make, tmp_path: Path, trimmed: bool) -> None:
    write(log, "a", "b", "c")
    bench = make().catch_up()
    bench.close()
    (tmp_path / "store" / "store.sqlite").write_bytes(b"not a database" * 100)
    if trimmed:
        log.trim(Position(1, 2))
    write(log, "d")
    bench = make().catch_up()
    assert (bench.position(), bench.data()) == ("1-4", {"a": "1", "b": "2", "c": "3", "d": "4"})
    assert bench.count("ec_resyncs_total", reason="gap") == trimmed
    assert bench.pending() == 0


def test_lateness_and_delay_are_measured(log: ReplicationLog, make: Make) -> None:
    bench = make(delay_ms=500).catch_up()
    write(log, "a")
    bench.read()
    bench.clock.us = log.history.newest(1)[0].at_us + 502_000
    bench.apply()
    assert bench.count("ec_replication_delay_seconds_sum") == pytest.approx(0.502)
    assert bench.count("ec_apply_lateness_seconds_sum") == pytest.approx(0.002)


def test_an_acknowledged_tail_lost_by_the_store_is_delivered_again_immediately(fake: Any, tmp_path: Path) -> None:
    bench = Bench(fake, tmp_path / "now")
    bench.log.open("o")
    bench.log.append("set", "a", "1", "w1")
    bench.catch_up()
    bench.store.checkpoint()
    bench.close()
    shutil.copytree(tmp_path / "now", tmp_path / "before")
    bench = Bench(fake, tmp_path / "now")
    bench.log.append("set", "b", "2", "w2")
    bench.catch_up()
    assert bench.pending() == 0
    bench.close()
    again = Bench(fake, tmp_path / "before").catch_up()  # as after a loss of power; no writes follow
    assert (again.position(), again.data()) == ("1-2", {"a": "1", "b": "2"})
    again.close()
