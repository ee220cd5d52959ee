"""Sessions on simulated stores, in simulated time: which guarantees hold depends on the route alone."""

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from broker.position import Position
from lab.checking import promises
from lab.checking.history import History, Plan
from lab.checking.verdict import Verdict
from lab.probe.instrument import Limits
from lab.probe.sessions import End, Observation, Route, reads_of, run
from lab.probe.steps import Step, perform
from lab.probe.target import NotNow
from tests.unit.lab.probe.store import Node, Visible, store

PLAN = Plan("observed", sessions=3, keys=3, seconds=30.0, write_share=0.3, positions=False)
SLOW, FAST = 0.2, 0.003
Delays = tuple[float, ...]


def nodes(*delays: float) -> list[Node]:
    """Return a primary, which can be read, and a replica for each delay."""
    primary, replicas = store(*((lambda _, seconds=seconds: seconds) for seconds in delays), round_trip=0.002)
    primary.replicas.append((primary, lambda _: 0.0))
    return [primary, *replicas]


def simulate(observation: Observation, stored: Sequence[Node], plan: Plan = PLAN) -> History:
    """Take every step when it is due, also while another session waits for a node; then the steps of the end."""
    clock, order = stored[0].clock, itertools.count()
    sessions = [observation.session(number, stored) for number in range(plan.sessions)]
    steps: list[tuple[float, int, Step]] = [(clock.at, next(order), one) for one in sessions]
    end = 0.0
    while steps and observation.shared.ended is None:
        clock.at, _, one = heapq.heappop(steps)
        due = perform(one, observation.shared)
        end = max(end, clock.at)
        if due is not None:
            heapq.heappush(steps, (due, next(order), one))
    clock.at = end
    if observation.shared.ended is None:
        last, again = End(stored, observation.shared), clock.at
        while again is not None:
            clock.at = again
            again = perform(last, observation.shared)
    assert observation.shared.failure is None
    return observation.history()


def observed(route: Route, *delays: float, plan: Plan = PLAN, version: Callable[[str], int] | None = None) -> History:
    stored = nodes(*delays)
    return simulate(Observation(plan, route, Limits(), stored[0].clock.now, version), stored, plan)


def judged(history: History, **bounds: float) -> dict[str, Verdict]:
    plan = replace(history.plan, **bounds)  # type: ignore[arg-type]
    return {found.guarantee: found for found in promises.judge(History(plan, history.operations))}


def violated(verdicts: dict[str, Verdict]) -> set[str]:
    return {name for name, found in verdicts.items() if found.judgement == "violated"}


BOTH = {"read_your_writes", "monotonic_reads", "real_time"}


@pytest.mark.parametrize(
    ("route", "delays", "expected"),
    [
        pytest.param("round-robin", (), set(), id="all on the primary"),
        pytest.param("sticky", (SLOW, FAST), {"read_your_writes", "real_time"}, id="each session on one node"),
        pytest.param("primary-writes", (FAST,), {"real_time"}, id="the fast replica only"),
        pytest.param("primary-writes", (SLOW, FAST), BOTH, id="both replicas in turn"),
        pytest.param("round-robin", (SLOW, FAST), BOTH, id="all nodes in turn"),
    ],
)
def test_each_route_breaks_the_guarantees_that_theory_says(route: Route, delays: Delays, expected: set[str]) -> None:
    history = observed(route, *delays)
    found = judged(history)
    assert violated(found) == expected
    tested = {name for name, verdict in found.items() if verdict.tested}
    assert set(found) - tested == {"consistent_prefix", "bounded_staleness"} | (
        set() if delays else {"monotonic_writes", "writes_follow_reads"} - tested
    )
    assert len(history.writes) > 200
    assert len(history.reads) > 500


def test_the_bound_that_holds_is_above_the_delay() -> None:
    history = observed("primary-writes", SLOW, FAST)
    for max_lag_ms, judgement in ((150.0, "violated"), (195.0, "violated"), (205.0, "held")):
        assert judged(history, max_lag_ms=max_lag_ms)["bounded_staleness"].judgement == judgement


def as_log(history: History) -> History:
    """The history as if its versions were positions in a log, which the order of writes has to match."""
    operations = [
        replace(found, position=Position(1, found.version)) if found.kind == "write" and found.outcome == "ok"
        else replace(found, position=Position(1, 10**9), epoch=1)
        for found in history.operations
    ]  # fmt: skip
    return History(replace(history.plan, positions=True), operations)


def test_versions_are_in_the_order_in_which_writes_were_invoked() -> None:
    history = observed("round-robin")
    by_log = judged(as_log(history))
    for name in "monotonic_writes", "writes_follow_reads", "real_time", "no_lost_write":
        assert by_log[name].judgement == "held"
    per_key: dict[str, itertools.count[int]] = {}
    mutant = observed("round-robin", version=lambda key: next(per_key.setdefault(key, itertools.count(1))))
    assert violated(judged(as_log(mutant))) >= {"writes_follow_reads", "real_time", "no_lost_write"}


def test_a_session_reads_the_nodes_of_its_route() -> None:
    def first(route: Route, session: int, replicas: int = 2) -> list[int]:
        return list(itertools.islice(reads_of(route, session, replicas), 4))

    assert [first("round-robin", session) for session in range(2)] == [[0, 1, 2, 0], [1, 2, 0, 1]]
    assert [first("sticky", session) for session in range(4)] == [[0] * 4, [1] * 4, [2] * 4, [0] * 4]
    assert [first("primary-writes", session) for session in range(2)] == [[1, 2, 1, 2], [2, 1, 2, 1]]


def test_the_load_stays_within_its_limits() -> None:
    stored = nodes(SLOW)
    limits = Limits(writes_per_second=10.0, writes_max=50)
    history = simulate(Observation(PLAN, "round-robin", limits, stored[0].clock.now), stored)
    assert len(history.writes) == 50
    few_reads = Limits(reads_per_second=5.0)
    stored = nodes(SLOW)
    history = simulate(Observation(PLAN, "round-robin", few_reads, stored[0].clock.now), stored)
    assert 3 * PLAN.seconds < len(history.reads) < 6 * PLAN.seconds
    history = observed("round-robin", SLOW)
    assert 5 * PLAN.seconds < len(history.writes) < 12 * PLAN.seconds


def test_a_run_repeats_with_its_seed() -> None:
    def done(seed: int) -> list[tuple[int, str, str, int]]:
        history = observed("round-robin", SLOW, plan=replace(PLAN, seed=seed, seconds=5.0))
        return [(found.session, found.kind, found.key, found.version) for found in history.operations]

    assert done(1) == done(1) != done(2)


def test_what_an_earlier_run_has_left_behind_is_nothing() -> None:
    stored = nodes(SLOW)
    for node in stored:
        node.log += [Visible(f"k{number:04}", 10**12, 0.0) for number in (1, 2, 3)]
    history = simulate(Observation(PLAN, "round-robin", Limits(), stored[0].clock.now), stored)
    assert judged(history)["no_phantom_write"].judgement == "held"
    assert min(found.version for found in history.reads) == 0


def test_an_interrupted_run_keeps_what_was_seen_and_removes_what_was_created() -> None:
    stored = nodes(FAST)
    stop = threading.Event()
    opened = [(lambda node=node: node) for node in stored]
    found = run(opened, PLAN, "round-robin", Limits(), stop=stop, on_step=lambda done: done and stop.set())
    assert found.ended == "it was interrupted"
    assert found.history.operations
    assert not found.history.finals
    assert stored[0].statements[:2] == ["prepare", "remove"]
    assert [node.statements.count("close") for node in stored] == [1 + PLAN.sessions] * 2


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_failed_write_can_be_shown_and_a_failed_read_is_no_stale_one() -> None:
    stored = nodes(FAST)
    write, writes = stored[0].write, itertools.count(1)

    def lose_answer(key: str, number: int) -> None:
        write(key, number)
        if next(writes) % 25 == 0:
            raise NotNow("timed out")

    stored[0].write = lose_answer  # type: ignore[method-assign]
    stored[1].fails = lambda operation: NotNow("gone") if operation % 30 == 0 else None
    history = simulate(Observation(PLAN, "round-robin", Limits(), stored[0].clock.now), stored)
    assert {found.outcome for found in history.operations} == {"ok", "unknown", "fail"}
    assert violated(judged(history)) <= {"real_time"}


def test_too_many_errors_end_the_run() -> None:
    stored = nodes(FAST)
    stored[1].fails = lambda operation: NotNow("lost") if operation > 60 else None
    observation = Observation(PLAN, "primary-writes", Limits(), stored[0].clock.now)
    history = simulate(observation, stored)
    assert observation.shared.ended is not None
    assert "reads failed, the last one with: lost" in observation.shared.ended
    assert judged(history)["read_your_writes"].tested


def test_errors_of_all_sessions_on_a_node_end_the_run() -> None:
    """Each of many sessions has too few operations on a node."""
    stored = nodes(FAST)
    stored[1].fails = lambda _: NotNow("lost")
    plan = replace(PLAN, sessions=20, keys=20, seconds=5.0)
    observation = Observation(plan, "round-robin", Limits(), stored[0].clock.now)
    simulate(observation, stored, plan)
    assert observation.shared.ended == "replica1: 20 of 20 reads failed, the last one with: lost"


def test_a_promotion_ends_the_run() -> None:
    stored = nodes(FAST)

    def promote(operation: int) -> None:
        stored[1].is_replica = operation < 50

    stored[1].fails = promote
    observation = Observation(PLAN, "round-robin", Limits(), stored[0].clock.now)
    simulate(observation, stored)
    assert observation.shared.ended is not None
    assert observation.shared.ended.startswith("replica1 became a primary during the run; ")


def test_nodes_that_differ_at_the_end_have_not_converged() -> None:
    stored = nodes(FAST)
    stored[0].replicas.pop(0)
    found = judged(simulate(Observation(PLAN, "round-robin", Limits(), stored[0].clock.now), stored))
    assert found["convergence"].words == "primary and replica1 hold different data"


def test_a_node_that_does_not_answer_at_the_end_is_unknown() -> None:
    stored = nodes(FAST)
    observation = Observation(PLAN, "primary-writes", Limits(), stored[0].clock.now)
    stored[1].fails = lambda _: NotNow("gone") if stored[0].clock.at > observation.shared.until else None
    assert judged(simulate(observation, stored))["convergence"].judgement == "unknown"
