"""The judge of torture runs, on a correct run and on correct runs with one violation each."""

from dataclasses import replace
from typing import Any

import pytest

from broker.entry import Entry
from broker.position import Position
from lab.checking import promises
from lab.checking.history import History, Operation, Plan
from lab.checking.workload import SESSIONS_APART
from lab.torture import judge, losses
from lab.torture.judge import Floors
from lab.torture.ledger import Ledger
from lab.torture.losses import Named


class Run:
    """A small correct run of one key, in which tests introduce violations."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.kills_us: list[int] = []
        self.named: list[dict[str, str]] = []
        self.changed: list[Position] = []
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

    def go_on(self, after: int, at_us: int = 700_000, epoch: int = 2) -> None:
        """Let the log lose what it had after a version, and go on with one write, at 2-4 after 1-3 for example."""
        start, origin = Position(epoch, after), f'"1-{after}"'
        self.entries = [entry for entry in self.entries if entry.position <= Position(1, after)]
        self.entries.append(Entry(start, "epoch", "", origin, f"e{epoch}", 0))
        self.entries.append(Entry(Position(epoch, after + 1), "set", "k", '"new"', "w9", 0))
        self.operations = [found for found in self.operations if found.kind in {"write", "read"}]
        head = {"position": Position(epoch, after + 1), "version": after + 1, "value": "new"}
        self.add("write", at_us, **head)
        self.add("final", 900_000, **head, node="primary")

    def name(self, positions: str, after: str = "1-2") -> None:
        self.named.append({"kind": "lost", "positions": positions, "after": after})

    def verdicts(self, least_ms: float = 100) -> dict[str, str]:
        floors = Floors(0)
        floors.add("replica", 0, least_ms)
        ledger = Ledger(Position(1, 0), self.entries, self.changed)
        kept, gone = losses.split(self.operations, ledger.lost_at)
        history = History(Plan("eventual"), judge.placed(kept, ledger))
        self.losses = losses.weigh(kept, gone, ledger, Named.of(self.named), self.kills_us)
        found = judge.judge(history, ledger, floors, self.losses)
        guarantees = ["lost", "doubled", "reordered", "early", "regressed", "stalled", "diverged"]
        assert [one.guarantee for one in found] == guarantees
        self.levels = promises.judge(history)
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


ROLLED_BACK = {"diverged": "not tested"}  # these runs end without digests


def test_a_lost_write_that_the_lab_names_is_no_violation_and_breaks_no_promise() -> None:
    run = Run()
    run.go_on(after=2)
    run.name("1-3")
    run.add("read", 800_000, value="new", position=Position(2, 3), version=3, node="replica")
    assert run.verdicts() == ROLLED_BACK
    assert [write.position for write in run.losses.named] == [Position(1, 3)]
    assert promises.broken(Plan("prefix"), run.levels) == []


def test_a_lost_write_that_nobody_names_is_concealed() -> None:
    run = Run()
    run.go_on(after=1)
    run.name("1-2", after="1-1")
    assert run.verdicts() == {"lost": "violated", **ROLLED_BACK}
    assert [write.position for write in run.losses.concealed] == [Position(1, 3)]


@pytest.mark.parametrize(("kill_us", "excused"), [(2_999, False), (3_000, True), (5_700_010, True), (5_700_011, False)])
def test_a_primary_that_was_killed_before_the_naming_cannot_name(kill_us: int, excused: bool) -> None:
    run = Run()
    run.go_on(after=2)
    run.kills_us = [kill_us]
    assert run.verdicts() == (ROLLED_BACK if excused else {"lost": "violated", **ROLLED_BACK})
    assert len(run.losses.forgotten) == excused


def test_a_named_write_that_the_log_has_is_a_violation() -> None:
    run = Run()
    run.go_on(after=2)
    run.name("1-2 to 1-3")
    assert run.verdicts() == {"lost": "violated", **ROLLED_BACK}


def test_a_write_that_was_lost_and_came_back_with_its_server_is_no_violation() -> None:
    run = Run()
    run.go_on(after=3, epoch=3)
    run.name("1-3")
    assert run.verdicts() == ROLLED_BACK


def test_further_ranges_of_a_long_text_count_as_named() -> None:
    run = Run()
    run.go_on(after=1)
    run.name("1-2 and 2 more ranges", after="1-1")
    assert run.verdicts() == ROLLED_BACK
    run.named[0]["after"] = "1-0"
    assert run.verdicts() == {"lost": "violated", **ROLLED_BACK}


def test_a_position_acknowledged_for_two_writes_is_doubled_even_if_it_was_lost() -> None:
    run = Run()
    run.go_on(after=2)
    run.name("1-3")
    run.add("write", 3_500, value="other", position=Position(1, 3), version=3)
    assert run.verdicts() == {"doubled": "violated", **ROLLED_BACK}


def test_an_entry_that_was_replaced_during_the_run_is_doubled() -> None:
    run = Run()
    run.changed = [Position(1, 2)]
    assert run.verdicts() == {"doubled": "violated"}


def test_a_lost_write_that_is_in_the_log_at_two_later_positions_is_doubled() -> None:
    run = Run()
    run.go_on(after=2)
    run.name("1-3")
    run.entries += [Entry(Position(2, version), "set", "k", '"v3"', "w3", 0) for version in (4, 5)]
    assert run.verdicts()["doubled"] == "violated"


def test_a_lost_value_at_a_later_position_is_reordered() -> None:
    run = Run()
    run.go_on(after=2)
    run.name("1-3")
    run.add("read", 800_000, value="v3", position=Position(2, 3), version=3, node="replica")
    assert run.verdicts()["reordered"] == "violated"


def test_an_acknowledged_write_that_is_missing_without_a_new_epoch_is_lost() -> None:
    run = Run()
    run.entries.pop()
    run.name("1-3")
    assert run.verdicts()["lost"] == "violated"


def test_thirty_seconds_without_an_acknowledged_write_are_a_stall() -> None:
    run = Run()
    run.add("read", 30_003_000, value="v3", position=Position(1, 3), version=3, node="primary")
    assert run.verdicts() == {}
    run.add("read", 30_004_000, value="v3", position=Position(1, 3), version=3, node="primary")
    assert run.verdicts() == {"stalled": "violated"}


def test_a_node_that_serves_an_old_state_is_stalled() -> None:
    run = Run()
    run.entries.append(Entry(Position(1, 4), "set", "k", '"v4"', "w4", 0))
    run.add("write", 20_000_000, value="v4", position=Position(1, 4), version=4)
    run.operations = [found for found in run.operations if found.kind in {"write", "read"}]
    run.add("read", 30_003_000, value="v2", position=Position(1, 2), version=2, node="another")
    assert run.verdicts() == ROLLED_BACK
    run.add("read", 30_003_020, value="v2", position=Position(1, 2), version=2, node="another")
    assert run.verdicts() == {"stalled": "violated", **ROLLED_BACK}


def test_a_session_that_goes_on_as_another_one_has_the_same_level() -> None:
    reads = [
        Operation(index, session, "read", "ok", index, index, key="k", position=Position(1, 1), node="r")
        for index, session in enumerate((3, 3 + SESSIONS_APART, 4))
    ]
    plans = {3: Plan("session"), 4: Plan("eventual")}
    found = judge.by_level(plans, History(Plan("eventual"), reads))
    tested = {level: max(one.tested for one in verdicts) for level, verdicts in found.items()}
    assert tested == {"session": 2, "eventual": 1}


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


def test_a_delay_whose_change_a_failover_can_lose_counts_for_ever() -> None:
    floors = Floors(0, can_return=True)
    floors.add("r", 1_000_000, 200)
    floors.add("r", 20_000_000, 900)
    assert floors.least_ms("r", 90_000_000, 91_000_000) == 200
    assert floors.least_ms("r", 500_000, 600_000) == 0
