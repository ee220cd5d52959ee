"""The ledger, on logs with missing entries."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from broker.log import ReplicationLog
from broker.position import Position
from lab.checking.history import History, Plan
from lab.checking.verdict import verdict
from lab.errors import LabError
from lab.torture import judge
from lab.torture.ledger import Follower


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
    assert verdict("doubled", judge.doubled, History(Plan("eventual"), []), ledger).judgement == "violated"
