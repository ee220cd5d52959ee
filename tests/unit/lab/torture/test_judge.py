"""The judge of torture runs, on a correct run and on correct runs with one violation each."""

from dataclasses import replace
from typing import Any

import pytest

from broker.entry import Entry
from broker.position import Position
from lab.checking.history import History, Operation, Plan
from lab.torture import judge
from lab.torture.judge import Floors
from lab.torture.ledger import Ledger


class Run:
    """A small correct run of one key, in which tests introduce violations."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.entries = [
            Entry(Position(1, version), "set", "k", f'"v{version}"', f"w{version}", 0) for version in (1, 2, 3)
        ]
        for version in (1, 2, 3):
            self.add("write", version * 1000, value=f"v{version}", position=Position(1, version), version=version)
            for node, later in (("primary", 1), ("replica", 500)):
                self.add(
                    "read",
                    (version + later) * 1000,
                    value=f"v{version}",
                    position=Position(1, version),
                    version=version,
                    node=node,
                )
        self.add("final", 900_000, value="v3", position=Position(1, 3), version=3, node="primary")
        for node in ("primary", "replica"):
            self.add("digest", 901_000, position=Position(1, 3), node=node, digest="d")

    def add(self, kind: Any, at_us: int, **found: Any) -> None:
        self.operations.append(Operation(len(self.operations), 0, kind, "ok", at_us, at_us + 10, key="k", **found))

    def spoil(self, kind: str, number: int, **changes: Any) -> None:
        index = [op.index for op in self.operations if op.kind == kind][number]
        self.operations[index] = replace(self.operations[index], **changes)

    def verdicts(self, least_ms: float = 100) -> dict[str, str]:
        floors = Floors(0)
        floors.add("replica", 0, least_ms)
        ledger = Ledger(Position(1, 0), self.entries)
        history = History(Plan("eventual"), judge.placed(self.operations, ledger))
        found = judge.judge(history, ledger, floors)
        assert [one.guarantee for one in found] == ["lost", "doubled", "reordered", "early", "regressed", "diverged"]
        return {one.guarantee: one.judgement for one in found if one.judgement != "held"}


def test_a_correct_run_is_clean() -> None:
    assert Run().verdicts() == {}


def test_an_acknowledged_write_that_is_not_in_the_log_is_lost() -> None:
    run = Run()
    run.spoil("write", 1, position=Position(1, 9), version=9)
    assert "lost" in run.verdicts()


def test_an_acknowledged_write_with_another_change_at_its_position_is_lost() -> None:
    run = Run()
    run.entries[1] = run.entries[1]._replace(value='"other"')
    assert "lost" in run.verdicts()


def test_a_write_missing_from_the_primary_at_the_end_is_lost() -> None:
    run = Run()
    run.spoil("final", 0, value="v2", version=2)
    assert run.verdicts() == {"lost": "violated"}


@pytest.mark.parametrize("outcome", ["ok", "unknown"])
def test_a_write_that_is_twice_in_the_log_is_doubled(outcome: Any) -> None:
    run = Run()
    run.add("write", 850_000, value="v4", position=Position(1, 4), version=4)
    run.spoil("write", 3, outcome=outcome)
    run.entries += [Entry(Position(1, version), "set", "k", '"v4"', f"w{version}", 0) for version in (4, 5)]
    assert run.verdicts()["doubled"] == "violated"


@pytest.mark.parametrize("position", [Position(1, 2), Position(1, 5), Position(2, 3)])
def test_a_position_that_does_not_follow_its_predecessor_is_reported(position: Position) -> None:
    run = Run()
    run.entries[2] = run.entries[2]._replace(position=position)
    assert run.verdicts()["doubled"] == "violated"


def test_a_store_that_differs_from_the_log_at_its_position_is_reordered() -> None:
    run = Run()
    run.spoil("read", 3, value="v1", version=1)
    assert run.verdicts() == {"reordered": "violated"}
    run = Run()
    run.spoil("read", 3, value=None, version=0)
    assert run.verdicts() == {"reordered": "violated"}
    run = Run()
    run.spoil("read", 3, value="corrupt")
    assert run.verdicts() == {"reordered": "violated"}


def test_writes_out_of_real_time_order_are_reordered() -> None:
    run = Run()
    run.spoil("write", 0, invoked_us=5000, returned_us=5010)
    assert run.verdicts(least_ms=0)["reordered"] == "violated"


def test_a_replica_that_applies_before_its_delay_is_early() -> None:
    assert Run().verdicts(least_ms=499) == {}
    assert Run().verdicts(least_ms=501) == {"early": "violated"}


def test_a_node_that_goes_back_to_an_earlier_position_has_regressed() -> None:
    run = Run()
    run.add("read", 870_000, value="v2", position=Position(1, 2), version=2, node="replica")
    assert run.verdicts() == {"regressed": "violated"}


def test_nodes_that_end_with_different_content_have_diverged() -> None:
    run = Run()
    run.spoil("digest", 1, digest="other")
    assert run.verdicts() == {"diverged": "violated"}


def test_a_continued_epoch_keeps_the_records_and_a_reset_drops_them() -> None:
    run = Run()
    run.entries.append(Entry(Position(2, 3), "epoch", "", '"1-3"', "e", 0))
    run.add("read", 860_000, value="v3", position=Position(2, 3), version=3, node="replica")
    assert run.verdicts() == {}
    run.entries[-1] = Entry(Position(2, 0), "epoch", "", "", "e", 0)
    run.spoil("read", -1, position=Position(2, 0))
    assert run.verdicts()["reordered"] == "violated"
    run.spoil("read", -1, value=None, version=0)
    assert "reordered" not in run.verdicts()


def test_a_delay_counts_until_every_replica_must_have_learned_the_next() -> None:
    floors = Floors(ahead_ms=80)
    assert floors.least_ms("r", 0, 10**9) == 0
    floors.add("r", 1_000_000, 200)
    floors.add("r", 20_000_000, 900)
    assert floors.least_ms("r", 2_000_000, 3_000_000) == 120
    assert floors.least_ms("r", 21_000_000, 22_000_000) == 120
    assert floors.least_ms("r", 40_000_000, 41_000_000) == 820
    assert floors.least_ms("r", 500_000, 600_000) == 0
    assert floors.least_ms("r", 19_000_000, 41_000_000) == 120
