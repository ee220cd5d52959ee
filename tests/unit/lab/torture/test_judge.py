"""Torture: the same seed the same schedule, and a judge that sees what must not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from broker.delay import from_json
from broker.entry import Entry
from broker.log import ReplicationLog
from broker.position import Position
from lab.checking.history import History, Operation, Plan
from lab.checking.verdict import verdict
from lab.errors import LabError
from lab.torture import judge, run
from lab.torture.judge import Floors
from lab.torture.ledger import Follower, Ledger
from lab.torture.schedule import ALL_FAULTS, DEFAULT_FAULTS, DELAY, DELAY_MS_MIN, draw
from nodes.replica.faults import FAULTS

REPLICAS = ["lab14-replica1", "lab14-replica2"]
PROCESSES = [*REPLICAS, "lab14-primary", "lab14-client", "lab14-redis"]


def test_the_same_seed_is_the_same_schedule_and_another_seed_another() -> None:
    one = draw(7, 120, PROCESSES, REPLICAS, DEFAULT_FAULTS)
    assert one == draw(7, 120, reversed(PROCESSES), reversed(REPLICAS), reversed(DEFAULT_FAULTS))
    assert one != draw(8, 120, PROCESSES, REPLICAS, DEFAULT_FAULTS)


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_has_what_was_asked_for_and_nothing_else(seed: int) -> None:
    acts = draw(seed, 120, PROCESSES, REPLICAS, ["kill", "pause"])
    assert {act.kind for act in acts} == {"kill", "pause", DELAY}
    assert {act.target for act in acts if act.kind != "kill"} <= set(REPLICAS)
    assert sum(act.kind != DELAY for act in acts) >= 50
    assert [act.at_ms for act in acts] == sorted(act.at_ms for act in acts)
    assert acts[-1].at_ms < 118_000
    for act in acts:
        if act.kind == DELAY:
            model = act.parameters["model"]
            from_json(model)
            assert model.get("ms", model.get("low_ms")) >= DELAY_MS_MIN


def test_every_fault_of_a_replica_can_be_drawn_and_is_taken() -> None:
    assert set(FAULTS) <= set(ALL_FAULTS)
    for act in draw(1, 3000, PROCESSES, REPLICAS, ALL_FAULTS):
        if act.kind in FAULTS:
            FAULTS[act.kind].model_validate({"fault": act.kind, **act.parameters})


def test_replicas_are_in_log_order_for_the_torture_and_as_they_were_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"http://r1:8001": {"kind": "exponential", "mean_ms": 80}, "http://r2:8002": {"kind": "fixed", "ms": 9}}
    before = {"models": models, "orders": {"http://r1:8001": "arrival", "http://r2:8002": "log"}}
    changes: list[Any] = []

    def call(method: str, url: str, body: Any = None, **_: Any) -> tuple[int, dict[str, Any]]:
        if url.endswith("/admin/replication-delay"):
            changes.append(body)
        healthy = {"status": "ok", "replicas": [{"faults": []}]}
        return 200, before if method == "GET" and url.endswith("-delays") else healthy

    class Target:
        client_url, primary_url = "http://client", "http://primary"

        def restart_ended(self) -> None: ...

    monkeypatch.setattr(run, "call", call)
    injector = run.Injector(cast("Any", Target()), Floors(0), lambda: 0, lambda _: None)
    injector.prepare(["r1", "r2"])
    injector.heal()
    assert [(change["replica"], change["order"]) for change in changes[:2]] == [("r1", "log"), ("r2", "log")]
    assert changes[2:] == [
        {"replica": "r1", "model": models["http://r1:8001"], "order": "arrival"},
        {"replica": "r2", "model": models["http://r2:8002"], "order": "log"},
    ]


# -- the judge --------------------------------------------------------------------------------------------------------


class Run:
    """A small correct run of one key, each operation a millisecond; tests spoil it."""

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


def test_another_change_at_the_position_of_an_acknowledged_write_is_a_loss() -> None:
    run = Run()
    run.entries[1] = run.entries[1]._replace(value='"other"')
    assert "lost" in run.verdicts()


def test_a_primary_that_ends_without_the_last_write_has_lost_it() -> None:
    run = Run()
    run.spoil("final", 0, value="v2", version=2)
    assert run.verdicts() == {"lost": "violated"}


@pytest.mark.parametrize("outcome", ["ok", "unknown"])
def test_a_write_that_is_in_the_log_twice_is_doubled(outcome: Any) -> None:
    run = Run()
    run.add("write", 850_000, value="v4", position=Position(1, 4), version=4)
    run.spoil("write", 3, outcome=outcome)
    run.entries += [Entry(Position(1, version), "set", "k", '"v4"', f"w{version}", 0) for version in (4, 5)]
    assert run.verdicts()["doubled"] == "violated"


@pytest.mark.parametrize("position", [Position(1, 2), Position(1, 5), Position(2, 3)])
def test_a_position_that_does_not_follow_the_one_before_is_seen(position: Position) -> None:
    run = Run()
    run.entries[2] = run.entries[2]._replace(position=position)
    assert run.verdicts()["doubled"] == "violated"


def test_a_store_that_does_not_show_what_the_log_says_of_its_position_is_reordered() -> None:
    run = Run()
    run.spoil("read", 3, value="v1", version=1)
    assert run.verdicts() == {"reordered": "violated"}
    run = Run()
    run.spoil("read", 3, value=None, version=0)
    assert run.verdicts() == {"reordered": "violated"}
    run = Run()
    run.spoil("read", 3, value="corrupt")
    assert run.verdicts() == {"reordered": "violated"}


def test_writes_out_of_the_order_of_real_time_are_reordered() -> None:
    run = Run()
    run.spoil("write", 0, invoked_us=5000, returned_us=5010)
    assert run.verdicts(least_ms=0)["reordered"] == "violated"


def test_a_replica_that_has_it_sooner_than_it_may_is_early() -> None:
    assert Run().verdicts(least_ms=499) == {}
    assert Run().verdicts(least_ms=501) == {"early": "violated"}


def test_a_node_that_goes_back_has_regressed() -> None:
    run = Run()
    run.add("read", 870_000, value="v2", position=Position(1, 2), version=2, node="replica")
    assert run.verdicts() == {"regressed": "violated"}


def test_nodes_that_end_with_different_content_have_diverged() -> None:
    run = Run()
    run.spoil("digest", 1, digest="other")
    assert run.verdicts() == {"diverged": "violated"}


def test_an_epoch_that_goes_on_keeps_what_was_there_and_a_reset_does_not() -> None:
    run = Run()
    run.entries.append(Entry(Position(2, 3), "epoch", "", '"1-3"', "e", 0))
    run.add("read", 860_000, value="v3", position=Position(2, 3), version=3, node="replica")
    assert run.verdicts() == {}
    run.entries[-1] = Entry(Position(2, 0), "epoch", "", "", "e", 0)
    run.spoil("read", -1, position=Position(2, 0))
    assert run.verdicts()["reordered"] == "violated"
    run.spoil("read", -1, value=None, version=0)
    assert "reordered" not in run.verdicts()


def test_a_delay_counts_until_every_replica_must_have_heard_of_the_next() -> None:
    floors = Floors(ahead_ms=80)
    assert floors.least_ms("r", 0, 10**9) == 0
    floors.add("r", 1_000_000, 200)
    floors.add("r", 20_000_000, 900)
    assert floors.least_ms("r", 2_000_000, 3_000_000) == 120
    assert floors.least_ms("r", 21_000_000, 22_000_000) == 120
    assert floors.least_ms("r", 40_000_000, 41_000_000) == 820
    assert floors.least_ms("r", 500_000, 600_000) == 0
    assert floors.least_ms("r", 19_000_000, 41_000_000) == 120


@pytest.mark.parametrize("trimmed", [2, 3])
def test_what_was_trimmed_before_the_ledger_read_it_is_told_and_no_verdict(
    trimmed: int, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.torture.ledger.connect", lambda _: fake)
    log = ReplicationLog(fake)
    log.open("w0")
    with Follower(lambda: "redis://x") as follower:
        follower._stop.set()
        for version in (1, 2, 3):
            log.append("set", "k", f'"v{version}"', f"w{version}")
        log.trim(Position(1, trimmed))
        with pytest.raises(LabError, match=r"trimmed.* 1-0"):
            follower.finish()


def test_a_hole_in_a_log_that_was_not_trimmed_is_judged(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.torture.ledger.connect", lambda _: fake)
    log = ReplicationLog(fake)
    log.open("w0")
    with Follower(lambda: "redis://x") as follower:
        follower._stop.set()
        for version in (1, 2, 3):
            log.append("set", "k", f'"v{version}"', f"w{version}")
        fake.xdel("lab14:log", "1-2")
        ledger = follower.finish()
    assert verdict("doubled", judge.doubled, History(Plan("eventual"), []), ledger).judgement == "violated"
