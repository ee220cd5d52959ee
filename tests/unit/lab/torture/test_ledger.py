"""The ledger, on logs with missing entries."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from broker.log import ReplicationLog
from broker.position import Position
from broker.registry import Events
from lab.checking.history import History, Plan
from lab.checking.verdict import verdict
from lab.errors import LabError
from lab.torture import judge
from lab.torture.ledger import Follower
from lab.torture.losses import Losses


@pytest.fixture
def log(fake: Any, monkeypatch: pytest.MonkeyPatch) -> ReplicationLog:
    """An empty log, which the ledger reads."""
    monkeypatch.setattr("lab.torture.ledger.connect", lambda _: fake)
    log = ReplicationLog(fake)
    log.open("w0")
    return log


@contextmanager
def followed(log: ReplicationLog) -> Iterator[Follower]:
    """Follow three writes, which are read only at the end."""
    with Follower(lambda: "redis://x") as follower:
        follower._stop.set()
        for version in (1, 2, 3):
            log.append("set", "k", f'"v{version}"', f"w{version}")
        yield follower


def rewind(fake: Any, last: int, epoch: int) -> None:
    """Let another server continue the log, in an epoch, that lacks every entry after this version of the first one."""
    kept = [one for one in fake.xrange("lab14:log") if Position.of_entry(one[0]) <= Position(1, last)]
    fake.delete("lab14:log")
    for name, fields in kept:
        fake.xadd("lab14:log", fields, id=name)
    start = {"op": "epoch", "key": "", "value": f'"1-{last}"', "write_id": f"e{epoch}", "at": "0", "traceparent": ""}
    fake.xadd("lab14:log", start, id=f"{epoch}-{last}")
    fake.hset("lab14:head", mapping={"epoch": epoch, "version": last})


def test_entries_that_another_server_lacks_are_lost_and_later_positions_do_not_show_them(
    log: ReplicationLog, fake: Any
) -> None:
    with followed(log) as follower:
        follower._read()
        rewind(fake, last=1, epoch=2)
        log.append("set", "other", '"x"', "w9")
        ledger = follower.finish()
    assert [str(entry.position) for entry in ledger.entries] == ["1-1", "2-1", "2-2"]
    found = ledger.newest("k", Position(2, 2))
    assert found is not None
    assert found.position == Position(1, 1)
    lost = [ledger.lost_at(position) for position in (Position(1, 1), Position(1, 3), Position(2, 1))]
    assert lost == [None, (Position(1, 1), Position(2, 1)), None]


def test_a_former_master_that_comes_back_brings_its_entries_back(log: ReplicationLog, fake: Any) -> None:
    with followed(log) as follower:
        follower._read()
        before = fake.xrange("lab14:log")
        rewind(fake, last=1, epoch=2)
        follower._read()
        fake.delete("lab14:log")
        for name, fields in before:
            fake.xadd("lab14:log", fields, id=name)
        rewind(fake, last=3, epoch=3)
        ledger = follower.finish()
    assert [str(entry.position) for entry in ledger.entries] == ["1-1", "1-2", "1-3", "3-3"]
    assert ledger.changed == []
    asked = (Position(1, 3), Position(1, 4), Position(3, 3))
    assert [ledger.has_always_had(position) for position in asked] == [False, False, True]


def test_an_entry_replaced_behind_the_follower_is_found(log: ReplicationLog, fake: Any) -> None:
    with followed(log) as follower:
        follower._read()
        fake.delete("lab14:log")
        fields = {"op": "set", "key": "k", "value": '"else"', "write_id": "w8", "at": "0", "traceparent": ""}
        for version in (1, 2, 3):
            fake.xadd("lab14:log", fields, id=f"1-{version}")
        fake.hset("lab14:head", mapping={"epoch": 1, "version": 3})
        ledger = follower.finish()
    assert ledger.changed == [Position(1, version) for version in (1, 2, 3)]


def test_the_events_that_name_lost_writes_are_read(log: ReplicationLog, fake: Any) -> None:
    events = Events(fake)
    with followed(log) as follower:
        events.publish("lost", count="1", positions="1-3", after="1-2")
        follower._read()
        events.publish("joined", replica="r")
        events.publish("lost", count="1", positions="2-4", after="2-3")
        assert [event["positions"] for event in follower.lost()] == ["1-3", "2-4"]


@pytest.mark.parametrize("trimmed", [2, 3])
def test_entries_trimmed_before_the_ledger_read_them_are_an_error_and_no_verdict(
    trimmed: int, log: ReplicationLog
) -> None:
    with followed(log) as follower:
        log.trim(Position(1, trimmed))
        with pytest.raises(LabError, match=r"trimmed.* 1-0"):
            follower.finish()


def test_a_hole_in_an_untrimmed_log_is_judged(log: ReplicationLog, fake: Any) -> None:
    with followed(log) as follower:
        fake.xdel("lab14:log", "1-2")
        ledger = follower.finish()
    assert verdict("doubled", judge.doubled, History(Plan("eventual"), []), ledger, Losses()).judgement == "violated"
