"""The judge of simulated replicas: every rule, broken on purpose."""

from collections.abc import Sequence
from contextlib import nullcontext

import pytest

from broker.delay.line import Schedule
from broker.delay.models import Fixed
from broker.entry import Record, contribution
from broker.position import Position
from broker.snapshot import Snapshot
from nodes.runtime.gate import State
from tests.unit.lab.simulation.judged import REPLICA, SERVER, World, violated


@pytest.fixture
def world() -> World:
    return World()


def test_an_entry_that_is_applied_twice(world: World) -> None:
    world.log("1-1")
    world.apply(world.entry("1-1"))
    with violated("each entry is applied once"):
        world.apply(world.entry("1-1"))


def test_an_entry_that_is_applied_before_one_ahead_of_it(world: World) -> None:
    world.log("1-1", "1-2")
    with violated("entries are applied in order"):
        world.apply(world.entry("1-2"))


def test_in_order_of_arrival_the_position_waits_for_what_is_missing(world: World) -> None:
    world.judge.scheduled(REPLICA, Schedule(Fixed(0), "arrival"))
    world.log("1-1", "1-2")
    world.judge.committed(REPLICA, [world.entry("1-2")], State(Position(1, 0), None, None))
    world.judge.applied(REPLICA, [Position(1, 2)])
    world.judge.committed(REPLICA, [world.entry("1-1")], State(Position(1, 1), None, None))
    with violated("a position covers what is applied"):
        world.judge.applied(REPLICA, [Position(1, 1)])


def test_one_batch_can_have_been_taken_before_the_order_changed(world: World) -> None:
    world.log("1-1", "1-2", "1-3", "1-4")
    for order in ("arrival", "log"):
        world.judge.scheduled(REPLICA, Schedule(Fixed(0), order))
    for version in (2, 4):
        world.judge.committed(REPLICA, [world.entry(f"1-{version}")], State(Position(1, 0), None, None))
        with violated("entries are applied in order") if version == 4 else nullcontext():
            world.judge.applied(REPLICA, [Position(1, version)])


def test_a_batch_that_a_snapshot_replaces_before_it_counts_is_not_judged(world: World) -> None:
    world.log("1-1", "1-2")
    world.judge.committed(REPLICA, [world.entry("1-1")], State(Position(1, 1), None, None))
    world.judge.installed(REPLICA, Snapshot(Position(1, 2), "w1-2", 0, [record(1), record(2)]))
    world.judge.applied(REPLICA, [Position(1, 1)])
    with violated("each entry is applied once"):
        world.judge.applied(REPLICA, [Position(1, 1)])


@pytest.mark.parametrize("write_id", [None, "another"])
def test_an_entry_that_the_log_never_had(world: World, write_id: str | None) -> None:
    if write_id is not None:
        world.log("1-1")
    with violated("what is applied is in the log"):
        world.apply(world.entry("1-1", write_id=write_id))


def applied_after(world: World, seconds: float) -> None:
    world.log("1-1")
    world.scheduler.run(world.scheduler.now_seconds() + seconds)
    world.apply(world.entry("1-1"))


def test_an_entry_that_is_applied_before_it_is_due(world: World) -> None:
    world.judge.scheduled(REPLICA, Schedule(Fixed(500)))
    world.scheduler.run(1)
    with violated("nothing is applied before it is due"):
        applied_after(world, 0.4)


def test_a_shorter_delay_that_is_set_while_an_entry_waits_counts(world: World) -> None:
    world.judge.scheduled(REPLICA, Schedule(Fixed(500)))
    world.scheduler.run(1)
    world.log("1-1")
    world.judge.scheduled(REPLICA, Schedule(Fixed(100)))
    world.scheduler.run(1.2)
    world.apply(world.entry("1-1"))


@pytest.mark.parametrize("set_clock", [lambda j: j.skewed(REPLICA, 150_000), lambda j: j.clock_set(-150_000)])
def test_a_clock_that_is_ahead_makes_entries_due_earlier_by_as_much(world: World, set_clock: object) -> None:
    world.judge.scheduled(REPLICA, Schedule(Fixed(500)))
    world.scheduler.run(1)
    set_clock(world.judge)  # type: ignore[operator]
    applied_after(world, 0.4)


def test_a_replica_that_starts_behind_its_own_commits(world: World) -> None:
    world.log("1-1")
    world.apply(world.entry("1-1"))
    with violated("a position does not go back"):
        world.judge.started(REPLICA, Position(1, 0), may_go_back=False)
    world.judge.started(REPLICA, Position(1, 0), may_go_back=True)


def test_an_acknowledgement_before_the_commit(world: World) -> None:
    world.log("1-1", "1-2")
    world.apply(world.entry("1-1"))
    world.judge.acknowledged_by(REPLICA, [Position(1, 1)])
    with violated("an entry is pending until its effect is durable"):
        world.judge.acknowledged_by(REPLICA, [Position(1, 2)])


def test_a_replica_that_claims_to_have_acknowledged_more_than_it_has_applied(world: World) -> None:
    world.judge.claimed(REPLICA, Position(1, 0))
    with violated("an entry is pending until its effect is durable"):
        world.judge.claimed(REPLICA, Position(1, 1))


def test_a_reset_voids_what_was_pending(world: World) -> None:
    world.log("1-1")
    world.judge.opened(SERVER, "started", Position(2, 0), "reset")
    world.judge.acknowledged_by(REPLICA, [Position(1, 1)])


def record(version: int, value: str = '"v"') -> Record:
    return Record(f"k{version}", value, version, f"w1-{version}", 0)


@pytest.mark.parametrize(
    ("records", "held"),
    [([record(1), record(2)], True), ([record(1)], False), ([record(1), record(2, '"x"')], False)],
)
def test_a_snapshot_has_the_content_of_its_position(world: World, records: Sequence[Record], held: bool) -> None:
    world.log("1-1", "1-2", "1-3")
    taken = Snapshot(Position(1, 2), "w1-2", 0, list(records))
    if held:
        world.judge.installed(REPLICA, taken)
    else:
        with violated("equal positions have equal content"):
            world.judge.installed(REPLICA, taken)


def test_a_store_with_another_content_than_the_log_at_its_position(world: World) -> None:
    world.log("1-1")
    world.apply(world.entry("1-1"))
    right = int.from_bytes(contribution("w1-1", "k1", '"v"'), "big")
    world.judge.content(REPLICA, Position(1, 1), right)
    with violated("equal positions have equal content"):
        world.judge.content(REPLICA, Position(1, 1), right + 1)


def test_a_replica_that_follows_into_an_epoch_that_continues_from_elsewhere(world: World) -> None:
    world.log("1-1", "1-2")
    world.judge.opened(SERVER, "continued", Position(2, 2), "p")
    with violated("a position covers what is applied"):
        world.judge.continued(REPLICA, Position(2, 2))
    world.apply(world.entry("1-1"), world.entry("1-2"))
    world.judge.continued(REPLICA, Position(2, 2))
