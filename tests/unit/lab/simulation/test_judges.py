"""The judge of simulated runs: every rule, broken on purpose."""

from collections.abc import Sequence
from contextlib import nullcontext
from random import Random

import pytest

from broker.delay.line import Schedule
from broker.delay.models import Fixed
from broker.entry import Entry, Record, contribution
from broker.position import START, Position
from broker.snapshot import Snapshot
from lab.simulation.judges import Judge
from lab.simulation.model import Copy, Line, Violation
from lab.simulation.scheduler import Scheduler
from lab.simulation.trace import Trace
from nodes.runtime.gate import State

SERVER, REPLICA = "log1", "lab14-replica1"


class World:
    """One log server, and one replica in log order without delay."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(Random(0))
        self.judge = Judge(self.scheduler, Trace(self.scheduler))
        self.judge.lines[SERVER] = Line()
        self.judge.copies[REPLICA] = Copy(REPLICA)
        self.judge.opened(SERVER, "started", Position(1, 0), "o")
        self.judge.started(REPLICA, START, may_go_back=False)
        self.judge.scheduled(REPLICA, Schedule(Fixed(0)))
        self.apply(self.entry("1-0", "epoch"))

    def log(self, *positions: str, write_id: str = "w") -> None:
        for position in positions:
            epoch, version = position.split("-")
            change = ("set", f"k{version}", '"v"', f"{write_id}{position}")
            self.judge.appended(SERVER, [change], [["applied", epoch, version, "0"]])

    def entry(self, position: str, op: str = "set", write_id: str | None = None) -> Entry:
        place = Position.parse(position)
        name = write_id or ("o" if op == "epoch" else f"w{position}")
        return Entry(place, op, f"k{place.version}", '"v"', name, 0)  # type: ignore[arg-type]

    def commit(self, *entries: Entry) -> None:
        self.judge.committed(REPLICA, entries, State(entries[-1].position, None, None))

    def apply(self, *entries: Entry) -> None:
        self.commit(*entries)
        self.judge.applied(REPLICA, [entry.position for entry in entries])

    def acknowledge(self, position: str, write_id: str | None = None) -> None:
        self.judge.acknowledged(Position.parse(position), write_id or f"w{position}", START)


@pytest.fixture
def world() -> World:
    return World()


def violated(rule: str) -> "pytest.RaisesExc[Violation]":
    return pytest.raises(Violation, match=f"^{rule}")


# -- the log ----------------------------------------------------------------------------------------------------------
def test_a_hole_in_the_log(world: World) -> None:
    world.log("1-1")
    with violated("positions have no gaps"):
        world.log("1-3")


def test_an_acknowledged_position_that_is_used_again(world: World) -> None:
    world.log("1-1")
    world.acknowledge("1-1")
    world.judge.lines[SERVER].head = Position(1, 0)  # the server lost its end
    with violated("a position names one change"):
        world.log("1-1", write_id="other")


def test_a_position_that_nobody_saw_can_be_used_again(world: World) -> None:
    world.log("1-1")
    world.judge.lines[SERVER].head = Position(1, 0)
    world.log("1-1", write_id="other")


def test_two_clients_that_are_told_the_same_position(world: World) -> None:
    world.log("1-1")
    world.acknowledge("1-1")
    with violated("a position names one change"):
        world.acknowledge("1-1", "other")


def test_an_epoch_that_was_there_before(world: World) -> None:
    with violated("epochs grow"):
        world.judge.opened(SERVER, "started", Position(1, 0), "p")


def test_a_log_that_goes_on_although_a_replica_has_seen_more(world: World) -> None:
    world.log("1-1")
    world.judge.holders = lambda: {REPLICA: Position(1, 2)}
    with violated("a position names one change"):
        world.judge.opened(SERVER, "open", Position(1, 1), "p")


def test_an_acknowledged_write_that_is_gone_without_a_fault(world: World) -> None:
    world.log("1-1", "1-2")
    world.acknowledge("1-2")
    world.judge.lines[SERVER].head = Position(1, 1)
    with violated("an acknowledged write is in the log"):
        world.judge.opened(SERVER, "continued", Position(2, 1), "p")


@pytest.mark.parametrize(("named", "held"), [("1-2 to 1-3", True), ("1-2", False), ("", False)])
def test_writes_that_a_fault_took_have_to_be_named(world: World, named: str, held: bool) -> None:
    world.log("1-1", "1-2", "1-3")
    world.acknowledge("1-2")
    world.acknowledge("1-3")
    world.judge.lines[SERVER].head = Position(1, 1)
    world.judge.may_lose = True
    world.judge.opened(SERVER, "continued", Position(2, 1), "p")
    world.judge.named(named)
    if held:
        world.judge.check_named()
    else:
        with violated("lost writes are named"):
            world.judge.check_named()


def test_a_primary_that_was_restarted_need_not_name_what_it_has_forgotten(world: World) -> None:
    world.log("1-1")
    world.acknowledge("1-1")
    world.scheduler.run(1)
    world.judge.primary_started()
    world.judge.lines[SERVER].head = Position(1, 0)
    world.judge.may_lose = True
    world.judge.opened(SERVER, "continued", Position(2, 0), "p")
    world.judge.check_named()


def test_a_write_that_is_acknowledged_at_an_earlier_position_than_one_before_it(world: World) -> None:
    world.log("1-1", "1-2")
    world.acknowledge("1-2")
    with violated("positions follow real time"):
        world.judge.acknowledged(Position(1, 1), "w1-1", world.judge.newest)


def test_a_write_that_is_in_the_log_twice(world: World) -> None:
    world.log("1-1")
    with violated("a repeated write is applied once"):
        world.judge.appended(SERVER, [("set", "k", '"v"', "w1-1")], [["applied", "1", "2", "0"]])


def test_a_write_that_is_applied_although_a_client_was_told_that_it_is_not(world: World) -> None:
    world.judge.refused("w1-1")
    with violated("a write reported as not applied stays so"):
        world.log("1-1")


def test_a_client_is_told_that_a_write_in_the_log_is_not_applied(world: World) -> None:
    world.log("1-1")
    with violated("a write reported as not applied stays so"):
        world.judge.refused("w1-1")


# -- a replica --------------------------------------------------------------------------------------------------------
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
