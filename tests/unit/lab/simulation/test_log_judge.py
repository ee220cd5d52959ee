"""The judge of simulated logs: every rule, broken on purpose."""

from contextlib import nullcontext

import pytest

from broker.position import Position
from tests.unit.lab.simulation.judged import REPLICA, SERVER, World, violated


@pytest.fixture
def world() -> World:
    return World()


def test_a_hole_in_the_log(world: World) -> None:
    world.log("1-1")
    with violated("positions have no gaps"):
        world.log("1-3")


def test_an_acknowledged_position_that_is_used_again(world: World) -> None:
    world.log("1-1")
    world.acknowledge("1-1")
    world.line.head = Position(1, 0)  # the server lost its end
    with violated("a position names one change"):
        world.log("1-1", write_id="other")


def test_a_position_that_nobody_saw_can_be_used_again(world: World) -> None:
    world.log("1-1")
    world.line.head = Position(1, 0)
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
    world.line.head = Position(1, 1)
    with violated("an acknowledged write is in the log"):
        world.judge.opened(SERVER, "continued", Position(2, 1), "p")


@pytest.mark.parametrize(("named", "held"), [("1-2 to 1-3", True), ("1-2", False), ("", False)])
def test_writes_that_a_fault_took_have_to_be_named(world: World, named: str, held: bool) -> None:
    world.log("1-1", "1-2", "1-3")
    world.acknowledge("1-2")
    world.acknowledge("1-3")
    world.line.head = Position(1, 1)
    world.judge.may_lose = True
    world.judge.opened(SERVER, "continued", Position(2, 1), "p")
    world.judge.named(named)
    if held:
        world.judge.check_named(world.line)
    else:
        with violated("lost writes are named"):
            world.judge.check_named(world.line)


def test_writes_that_a_former_master_brings_back_need_not_be_named(world: World) -> None:
    world.log("1-1", "1-2")
    world.acknowledge("1-2")
    former = world.line.copy()
    world.line.head = Position(1, 1)
    world.judge.may_lose = True
    world.judge.opened(SERVER, "continued", Position(2, 1), "p")
    world.judge.lines[SERVER] = former
    world.judge.opened(SERVER, "continued", Position(3, 2), "p")
    world.judge.check_named(world.line)


@pytest.mark.parametrize("seen", ["2-1", "2-2"])
def test_the_positions_of_an_epoch_that_all_have_lost_are_used_again(world: World, seen: str) -> None:
    world.log("1-1")
    before = world.line.copy()
    world.judge.opened(SERVER, "continued", Position(2, 1), "p")
    world.log("2-2")
    world.acknowledge("2-2")
    sent_after = world.judge.newest
    world.judge.lines[SERVER] = before
    world.judge.holders = lambda: {REPLICA: Position.parse(seen)}
    world.judge.opened(SERVER, "continued", Position(2, 1), "q")
    with nullcontext() if seen == "2-1" else violated("a position names one change"):
        world.log("2-2", "2-3", write_id="other")
        world.acknowledge("2-3", "other2-3")
        world.judge.acknowledged(Position(2, 2), "other2-2", sent_after)


def test_a_primary_that_was_restarted_need_not_name_what_it_has_forgotten(world: World) -> None:
    world.log("1-1")
    world.acknowledge("1-1")
    world.scheduler.run(1)
    world.judge.primary_started()
    world.line.head = Position(1, 0)
    world.judge.may_lose = True
    world.judge.opened(SERVER, "continued", Position(2, 0), "p")
    world.judge.check_named(world.line)


def test_a_lag_that_is_not_the_number_of_entries_left(world: World) -> None:
    world.judge.lags({"r1": (3, 3)})
    for lag in (None, 2):
        with violated("lag is right"):
            world.judge.lags({"r1": (lag, 3)})
    world.judge.foreign.add(Position(1, 10**9))
    world.judge.lags({"r1": (None, 3)})
    with violated("lag is right"):
        world.judge.lags({"r1": (2, 3)})


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
