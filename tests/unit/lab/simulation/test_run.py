"""Whole simulated runs: repeatable, disturbed as planned, and ended by the first violation."""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from broker.delay.line import DelayLine
from lab.simulation import shrink as shrinking
from lab.simulation.run import SHORT, USUAL, Failure, Outcome, plan, simulate
from lab.simulation.schedule import KINDS, Fault
from lab.simulation.shrink import shrink
from lab.simulation.workload import LEVELS

SECONDS = SHORT.round_seconds


def test_the_same_seed_takes_the_same_steps_and_another_seed_others() -> None:
    first, second, other = (simulate(seed, SECONDS, pace=SHORT) for seed in (14, 14, 15))
    assert (first.steps, first.counts, first.met) == (second.steps, second.counts, second.met)
    assert first.steps != other.steps


def test_a_run_writes_applies_and_reads_at_every_level_and_leaves_nothing_behind() -> None:
    threads = threading.active_count()
    outcome = simulate(14, 4 * SECONDS, [], SHORT)
    assert outcome.failure is None
    assert outcome.counts["acknowledged"] > 30 * SECONDS
    assert outcome.counts["applied"] > 1.5 * outcome.counts["acknowledged"]
    assert all(outcome.counts[f"reads at level {level}"] for level in LEVELS)
    assert outcome.counts["quiet points"] == 4
    assert threading.active_count() == threads


def test_faults_come_at_the_planned_rate_of_every_kind_and_leave_calm_before_each_quiet_point() -> None:
    hours = 40
    faults = [fault for seed in range(hours) for fault in plan(seed, 3600)]
    assert 19 < hours * 3600 / len(faults) < 21
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(fault.at_seconds % 300 < 300 - USUAL.calm_seconds for fault in faults)


def test_a_run_shorter_than_a_round_has_faults_too() -> None:
    assert any(plan(seed, 60) for seed in range(4))
    assert all(fault.at_seconds < 24 for seed in range(20) for fault in plan(seed, 60))


def test_a_run_lasts_as_long_as_it_should_or_until_its_last_quiet_point() -> None:
    found = [simulate(14, SECONDS, [], pace) for pace in (SHORT, SHORT._replace(ends_quiet=False))]
    assert found[0].seconds < found[1].seconds == SECONDS
    assert [one.counts["quiet points"] for one in found] == [1, 1]


def test_the_plan_of_a_seed_stays_the_same() -> None:
    assert plan(14, 600) == plan(14, 600) != plan(15, 600)


@pytest.mark.parametrize("silent", [0, 1, 2])
def test_a_restarted_primary_does_not_append_in_an_epoch_that_a_replica_has_left(silent: int) -> None:
    """A former master is master again; with every replica silent, it goes on until one answers."""
    hangs = [Fault(number, 12.5, "hang", number, 0.9, 0) for number in range(1, 1 + silent)]
    outcome = simulate(8, 40, [Fault(0, 10, "failback", 0, 0.6, 0.4), *hangs], SHORT)
    assert outcome.failure is None, outcome.failure
    assert len(outcome.told) == 1 + silent


def test_an_epoch_that_only_silent_replicas_know_is_not_started_again() -> None:
    """The log loses its start, and the primary, which knew of it, is restarted."""
    foreign = [Fault(number, at, "foreign_entry", 1, 0, 0.5) for number, at in enumerate((3.0, 5.2))]
    outcome = simulate(12, 40, [*foreign, Fault(2, 5.3, "log_power_loss", 13, 0.6, 0.99)], SHORT)
    assert outcome.failure is None, outcome.failure
    assert len(outcome.told) == 3


def test_a_violation_ends_the_run_and_is_shown_with_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DelayLine, "due_us", lambda _, entry: entry.at_us)
    failure = simulate(14, SECONDS, pace=SHORT).failure
    assert failure is not None
    assert failure.rule == "nothing is applied before it is due"
    assert failure.at_seconds < SECONDS
    assert failure.events
    assert shrink(failure).faults == []


# -- the shortest failure ---------------------------------------------------------------------------------------------
def fault(number: int, at_seconds: float) -> Fault:
    return Fault(number, at_seconds, "kill", 0, 0.5, 0.5)


def failure(faults: Sequence[Fault], at_seconds: float, seconds: float) -> Failure:
    return Failure(1, seconds, USUAL, "rule", "words", at_seconds, list(faults), [], [])


class Runs:
    """Runs that fail if all the faults with these numbers are in them."""

    def __init__(self, *needed: int) -> None:
        self.needed = set(needed)
        self.ends: list[float] = []

    def __call__(self, seed: int, seconds: float, faults: Sequence[Fault], *_: Any) -> Outcome:
        self.ends.append(seconds)
        outcome = Outcome(seed, seconds, 0, Counter())
        if self.needed <= {one.number for one in faults}:
            outcome.failure = failure(faults, min(seconds, max([1.0, *(one.at_seconds for one in faults)])), seconds)
        return outcome


@pytest.mark.parametrize("needed", [(), (3,), (2, 17), (0, 9, 19)])
def test_only_the_faults_that_a_failure_needs_are_left(
    monkeypatch: pytest.MonkeyPatch, needed: tuple[int, ...]
) -> None:
    runs = Runs(*needed)
    monkeypatch.setattr(shrinking, "simulate", runs)
    faults = [fault(number, 10.0 * (number + 1)) for number in range(20)]
    assert [one.number for one in shrink(failure(faults, 210, 300)).faults] == list(needed)


def test_a_failure_after_hours_is_looked_for_in_a_lab_that_starts_shortly_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = Runs(2)
    monkeypatch.setattr(shrinking, "simulate", runs)
    found = shrink(failure([fault(number, 3600.0 * (number + 1)) for number in range(3)], 10_801, 86_400))
    assert [(one.number, one.at_seconds) for one in found.faults] == [(2, 300.0)]
    assert max(runs.ends) == 600


def test_the_search_ends_after_so_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(*range(0, 200, 2))
    monkeypatch.setattr(shrinking, "simulate", runs)
    trials: list[int] = []
    shrink(failure([fault(number, 1.0 * number) for number in range(200)], 210, 300), trials.append)
    assert len(runs.ends) == len(trials) <= 80
