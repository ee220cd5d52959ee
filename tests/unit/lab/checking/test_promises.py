"""The checkers: on short histories, on a thousand correct ones, and on correct ones with one violation."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from broker.position import Position
from lab.checking import promises
from lab.checking.history import History, Operation, Plan, newest_through
from lab.checking.verdict import Verdict
from tests.support.histories import World

LEVELS = tuple(promises.PROMISES)


def write(index: int, session: int, key: str, version: int, at: int, *, epoch: int = 1) -> Operation:
    position = Position(epoch, version)
    return Operation(
        index, session, "write", "ok", at, at + 1, key=key, value=f"v{version}", position=position, version=version
    )


def read(index: int, session: int, key: str, version: int, at: int, position: str, node: str = "a") -> Operation:
    return Operation(
        index, session, "read", "ok", at, at + 1, key=key, value=f"v{version}" if version else None,
        position=Position.parse(position), version=version, node=node,
    )  # fmt: skip


def judged(*operations: Operation, **bounds: float) -> dict[str, Verdict]:
    history = History(Plan("session", **bounds), operations)  # type: ignore[arg-type]
    return {found.guarantee: found for found in promises.judge(history)}


def violated(verdicts: dict[str, Verdict]) -> set[str]:
    return {name for name, found in verdicts.items() if found.judgement == "violated"}


# -- short histories ---------------------------------------------------------------------------------------------------


def test_a_read_that_misses_the_sessions_own_write_names_both() -> None:
    found = judged(write(0, 1, "k", 1, 0), read(1, 1, "k", 0, 5, "1-0"))["read_your_writes"]
    assert (found.judgement, found.tested, found.violations) == ("violated", 1, 1)
    assert [operation.index for operation in found.operations] == [0, 1]
    assert (
        found.words
        == "session 1 wrote k as 1-1; then session 1 read k from a and was shown nothing, at 1-0, which is older"
    )


def test_writes_of_other_sessions_and_keys_do_not_concern_a_session() -> None:
    found = judged(write(0, 1, "k", 1, 0), read(1, 2, "k", 0, 5, "1-0"), read(2, 1, "x", 0, 8, "1-0"))
    assert found["read_your_writes"].judgement == "not tested"


def test_going_back_in_time_between_replicas_breaks_monotonic_reads() -> None:
    operations = (
        write(0, 9, "k", 1, 0),
        read(1, 1, "k", 1, 5, "1-1"),
        read(2, 1, "k", 0, 8, "1-0", node="b"),
    )
    assert violated(judged(*operations)) == {"monotonic_reads", "real_time"}


def test_after_a_reset_earlier_writes_need_not_be_shown() -> None:
    operations = (write(0, 1, "k", 7, 0), read(1, 1, "k", 7, 5, "1-7"), read(2, 1, "k", 0, 8, "2-0"))
    assert not violated(judged(*operations))


def test_a_store_of_an_earlier_epoch_goes_back_in_time() -> None:
    operations = (write(0, 1, "k", 1, 0, epoch=2), read(1, 1, "k", 5, 5, "1-5"))
    assert violated(judged(*operations)) == {"read_your_writes", "real_time", "no_phantom_write"}


def test_a_node_that_shows_the_second_write_without_the_first_breaks_monotonic_writes() -> None:
    first, second = write(0, 1, "x", 1, 0), write(1, 1, "y", 2, 5)
    shown, lacking = read(2, 7, "y", 2, 10, "1-2"), read(3, 8, "x", 0, 20, "1-0")
    found = judged(first, second, shown, lacking)["monotonic_writes"]
    assert found.judgement == "violated"
    assert found.operations == [first, second, shown, lacking]
    assert judged(first, second, shown, replace(lacking, node="b"))["monotonic_writes"].judgement == "held"


def test_a_node_that_shows_a_write_without_what_its_writer_had_read_breaks_writes_follow_reads() -> None:
    cause, seen, effect = write(0, 5, "x", 1, 0), read(1, 1, "x", 1, 5, "1-1"), write(2, 1, "y", 2, 8)
    shown, lacking = read(3, 7, "y", 2, 12, "1-2"), read(4, 8, "x", 0, 20, "1-0")
    found = judged(cause, seen, effect, shown, lacking)
    assert found["writes_follow_reads"].operations == [seen, effect, shown, lacking]
    assert found["monotonic_writes"].judgement == "not tested"


def test_overlapping_reads_have_no_order() -> None:
    first, second = write(0, 1, "x", 1, 0), write(1, 1, "y", 2, 5)
    shown = replace(read(2, 7, "y", 2, 10, "1-2"), returned_us=30)
    lacking = read(3, 8, "x", 0, 20, "1-0")
    assert judged(first, second, shown, lacking)["monotonic_writes"].judgement == "held"


def test_a_store_without_a_write_below_its_position_breaks_consistent_prefix() -> None:
    found = judged(write(0, 1, "k", 1, 0), read(1, 2, "k", 0, 5, "1-3"))["consistent_prefix"]
    assert [operation.index for operation in found.operations] == [0, 1]
    beyond = judged(write(0, 1, "k", 4, 0), read(1, 2, "k", 4, 5, "1-3"))["consistent_prefix"]
    assert beyond.judgement == "violated"


@pytest.mark.parametrize(("max_lag_ms", "judgement"), [(0.002, "violated"), (0.0039, "violated"), (0.005, "held")])
def test_staleness_in_time_counts_from_the_acknowledgement(max_lag_ms: float, judgement: str) -> None:
    operations = (write(0, 1, "k", 1, 0), read(1, 2, "k", 0, 5, "1-0"))
    assert judged(*operations, max_lag_ms=max_lag_ms)["bounded_staleness"].judgement == judgement


@pytest.mark.parametrize(("max_lag_versions", "judgement"), [(0, "violated"), (2, "violated"), (3, "held")])
def test_staleness_in_versions_counts_all_writes(max_lag_versions: int, judgement: str) -> None:
    others = [write(version, 1, "x", version, 3 * version) for version in (2, 3)]
    operations = (write(0, 1, "k", 1, 0), *others, read(4, 2, "k", 0, 20, "1-0"))
    found = judged(*operations, max_lag_versions=max_lag_versions)["bounded_staleness"]
    assert found.judgement == judgement


def test_a_write_concurrent_with_a_read_need_not_be_shown() -> None:
    going_on = replace(write(0, 1, "k", 1, 0), returned_us=12)
    lacking = replace(read(1, 2, "k", 0, 10, "1-0"), returned_us=20)
    assert judged(going_on, lacking)["real_time"].judgement == "held"
    # It is older than the newest acknowledged write, but was not acknowledged when the read was invoked.
    bounded = judged(going_on, write(2, 3, "x", 2, 3), lacking, max_lag_versions=0)["bounded_staleness"]
    assert bounded.judgement == "held"


def test_a_write_of_unknown_outcome_cannot_be_shown_before_its_invocation() -> None:
    later = replace(write(1, 1, "k", 1, 50), outcome="unknown", position=None, version=0)
    assert violated(judged(read(0, 1, "k", 1, 5, "1-1"), later)) == {"no_phantom_write"}


def test_without_operations_nothing_is_tested() -> None:
    assert {found.judgement for found in judged().values()} == {"not tested"}


def test_a_write_of_unknown_outcome_can_be_shown_or_not() -> None:
    unknown = replace(write(0, 1, "k", 1, 0), outcome="unknown", position=None, version=0)
    for version in (0, 1):
        assert not violated(judged(unknown, read(1, 1, "k", version, 5, f"1-{version}")))


@pytest.mark.parametrize(("r", "w"), [(1, 1), (1, 2), (2, 2), (1, 3), (3, 1)])
def test_only_overlapping_quorums_promise_to_show_own_writes(r: int, w: int) -> None:
    operations = (replace(write(0, 1, "k", 1, 0), acks=w), read(1, 1, "k", 0, 5, "1-0"))
    history = History(Plan("quorum", r=r, w=w, n=3), operations)
    broken = [found.guarantee for found in promises.broken(history.plan, promises.judge(history))]
    assert broken == ["read_your_writes"] * (r + w > 3)
    assert promises.promised(Plan("quorum", r=r, w=w)) == promises.PROMISES["quorum"], "n is unknown"


def test_a_write_without_its_acknowledgements_need_not_be_shown_by_a_quorum() -> None:
    acknowledged, late = replace(write(0, 1, "k", 1, 0), acks=2), replace(write(1, 1, "k", 2, 5), acks=1)
    for version, judgement in ((1, "held"), (0, "violated")):
        history = History(Plan("quorum", r=2, w=2, n=3), (acknowledged, late, read(2, 1, "k", version, 9, "1-1")))
        assert promises.judge(history)[0].judgement == judgement


# -- without positions -------------------------------------------------------------------------------------------------

OBSERVED = Plan("observed", positions=False)


def without_positions(*operations: Operation, **plan: Any) -> dict[str, Verdict]:
    history = History(replace(OBSERVED, **plan), [replace(found, position=None) for found in operations])
    return {found.guarantee: found for found in promises.judge(history)}


def test_without_positions_nothing_that_needs_the_log_is_tested() -> None:
    operations = (write(0, 1, "x", 7, 0), write(1, 1, "y", 3, 5), read(2, 1, "x", 7, 9, "1-9"), write(3, 1, "z", 4, 12))
    found = without_positions(*operations, max_lag_versions=0)
    tested = {name for name, verdict in found.items() if verdict.tested}
    assert tested == {"read_your_writes", "real_time", "no_phantom_write"}
    assert not violated(found)
    assert violated(judged(*operations)) == {"monotonic_writes", "writes_follow_reads", "real_time"}


def test_without_positions_a_node_must_still_show_the_writes_before_the_one_it_shows() -> None:
    first, second = write(0, 1, "x", 1, 0), write(1, 1, "y", 2, 5)
    shown, lacking = read(2, 7, "y", 2, 10, "1-2"), read(3, 8, "x", 0, 20, "1-0")
    assert violated(without_positions(first, second, shown, lacking)) == {"monotonic_writes", "real_time"}


def test_writes_without_positions_do_not_share_one() -> None:
    last = replace(read(2, -1, "x", 1, 9, "1-1"), kind="final")
    found = without_positions(write(0, 1, "x", 1, 0), write(1, 1, "y", 2, 5), last, replace(last, key="y", version=2))
    assert (found["no_lost_write"].judgement, found["no_lost_write"].tested) == ("held", 2)
    lost = without_positions(write(0, 1, "x", 1, 0), replace(last, version=0))["no_lost_write"]
    assert lost.words == "session 1 wrote x as version 1; at the end a had nothing of x"


def test_without_positions_nodes_are_compared_by_their_digests() -> None:
    digests = [Operation(n, -1, "digest", "ok", n, n, node=f"n{n}", digest="same") for n in range(2)]
    assert without_positions(*digests)["convergence"].judgement == "held"
    other = without_positions(digests[0], replace(digests[1], digest="other"))["convergence"]
    assert other.words == "n0 and n1 hold different data"


def test_a_counterexample_without_positions_names_versions_and_tokens() -> None:
    own = replace(write(0, 1, "k", 26, 0), token="0/16B3748")
    found = without_positions(own, read(1, 1, "k", 25, 5, "1-0"))["read_your_writes"]
    assert found.words == (
        "session 1 wrote k as version 26 (0/16B3748); "
        "then session 1 read k from a and was shown version 25, which is older"
    )


def test_an_observed_history_breaks_only_what_was_expected_of_it() -> None:
    operations = [replace(found, position=None) for found in (write(0, 1, "k", 1, 0), read(1, 1, "k", 0, 5, "1-0"))]
    for expected in (), ("monotonic_reads",), ("read_your_writes",):
        history = History(replace(OBSERVED, expected=expected), operations)
        broken = [found.guarantee for found in promises.broken(history.plan, promises.judge(history))]
        assert broken == [name for name in expected if name == "read_your_writes"]


def test_expectations_must_be_tested() -> None:
    history = History(replace(OBSERVED, expected=("read_your_writes", "convergence")), [])
    assert promises.untested(history.plan, promises.judge(history)) == ["read_your_writes", "convergence"]
    assert promises.untested(OBSERVED, promises.judge(history)) == []


# -- correct histories -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_correct_histories_are_accepted(level: str) -> None:
    held = 0
    for seed in range(250):
        history = World(seed, level, length=40).history()
        bounds = {"strong": 0, "bounded": 10_000_000}.get(level)
        history.plan = replace(history.plan, max_lag_ms=bounds)
        verdicts = promises.judge(history)
        assert not promises.broken(history.plan, verdicts), (seed, promises.broken(history.plan, verdicts)[0])
        held += sum(found.judgement == "held" for found in verdicts)
    assert held > 250 * 5


# -- one violation -----------------------------------------------------------------------------------------------------

Broken = tuple[list[Operation], set[str], set[str]] | None
"""The history with one violation, the checkers that must report it, and the checkers that can."""


def older(history: History, found: Operation, below: Position) -> Operation:
    """Return the operation with the result of a store just before that position."""
    position = Position(below.epoch, below.version - 1)
    before = newest_through(history.writes_by_key().get(found.key, []), position)
    version, value = (before.version, before.value) if before else (0, None)
    return replace(found, position=position, version=version, value=value, node="elsewhere")


def instead(history: History, old: Operation, new: Operation) -> list[Operation]:
    return [new if found is old else found for found in history.operations]


def lacks_own_write(history: History, random: Random) -> Broken:
    written: dict[tuple[int, str], Operation] = {}
    for found in history.operations:
        if found.kind == "write":
            written[found.session, found.key] = found
        elif found.kind == "read" and (own := written.get((found.session, found.key))):
            operations = instead(history, found, older(history, found, own.seen))
            return operations, {"read_your_writes", "real_time"}, {"monotonic_reads"}
    return None


def goes_back(history: History, random: Random) -> Broken:
    shown: dict[tuple[int, str], Operation] = {}
    for found in history.reads:
        before = shown.get((found.session, found.key))
        if before is not None and before.version:
            operations = instead(history, found, older(history, found, before.seen))
            return operations, {"monotonic_reads", "real_time"}, {"read_your_writes"}
        shown[found.session, found.key] = found
    return None


def is_stale(history: History, random: Random) -> Broken:
    candidates = [found for found in history.reads if found.version]
    if not candidates:
        return None
    found = random.choice(candidates)
    stale = replace(older(history, found, found.seen), session=99)
    return instead(history, found, stale), {"real_time", "bounded_staleness"}, set()


def swaps_own_writes(history: History, random: Random) -> Broken:
    for operations in history.by_session().values():
        writes = [found for found in operations if found.kind == "write"]
        for one, other in pairwise(writes):
            swapped = {
                one.index: replace(one, position=other.position, version=other.version),
                other.index: replace(other, position=one.position, version=one.version),
            }
            only_writes = [swapped.get(found.index, found) for found in history.writes]
            return only_writes, {"monotonic_writes", "real_time"}, set()
    return None


def shows_second_write_only(history: History, random: Random) -> Broken:
    for operations in history.by_session().values():
        writes = [found for found in operations if found.kind == "write"]
        pairs = [(one, other) for one, other in pairwise(writes) if one.key != other.key]
        if not pairs:
            continue
        one, other = random.choice(pairs)
        end = max(found.returned_us for found in history.operations)
        shown = replace(
            other, index=10_000, kind="read", session=98, node="odd", invoked_us=end + 1, returned_us=end + 2
        )
        lacking = replace(shown, index=10_001, session=99, key=one.key, invoked_us=end + 3, returned_us=end + 4)
        lacking = replace(older(history, lacking, one.seen), node="odd")
        may = {"writes_follow_reads", "real_time", "bounded_staleness"}
        return [*history.operations, shown, lacking], {"monotonic_writes", "real_time"}, may
    return None


def writes_before_what_it_read(history: History, random: Random) -> Broken:
    for operations in history.by_session().values():
        for at, found in enumerate(operations):
            if found.kind == "write" and any(before.kind == "read" for before in operations[:at]):
                reads = [before for before in operations[:at] if before.kind == "read"]
                later = [other for other in history.writes if other.seen > found.seen]
                if later:
                    source = later[0]
                    new = replace(
                        reads[-1], key=source.key, version=source.version, value=source.value, position=source.position
                    )
                    may = {"real_time", "monotonic_reads", "read_your_writes", "monotonic_writes"}
                    return instead(history, reads[-1], new), {"writes_follow_reads"}, may
    return None


def misses_part_of_its_prefix(history: History, random: Random) -> Broken:
    candidates = [found for found in history.reads if found.version]
    if not candidates:
        return None
    found = random.choice(candidates)
    lacking = replace(older(history, found, found.seen), position=found.position, session=99)
    return instead(history, found, lacking), {"consistent_prefix", "real_time", "bounded_staleness"}, set()


def forgets_a_write(history: History, random: Random) -> Broken:
    candidates = [found for found in history.finals if found.version]
    if not candidates:
        return None
    final = random.choice(candidates)
    lacking = replace(older(history, final, final.seen), position=final.position)
    return instead(history, final, lacking), {"no_lost_write", "consistent_prefix"}, set()


def invents_a_value(history: History, random: Random) -> Broken:
    candidates = [found for found in history.reads if found.version]
    if not candidates:
        return None
    found = random.choice(candidates)
    return instead(history, found, replace(found, value="never written")), {"no_phantom_write"}, set()


def diverges(history: History, random: Random) -> Broken:
    digest = history.digests[-1]
    return instead(history, digest, replace(digest, digest="other")), {"convergence"}, set()


BREAKS: list[Callable[[History, Random], Broken]] = [
    lacks_own_write,
    goes_back,
    is_stale,
    swaps_own_writes,
    shows_second_write_only,
    writes_before_what_it_read,
    misses_part_of_its_prefix,
    forgets_a_write,
    invents_a_value,
    diverges,
]


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
def test_only_the_affected_checkers_report_a_violation(
    breaks: Callable[[History, Random], Broken],
) -> None:
    tried = 0
    for seed in range(100):
        history = World(seed, "strong", calm=True).history()
        found = breaks(history, Random(seed))
        if found is None:
            continue
        tried += 1
        operations, must, may = found
        plan = Plan("strong", max_lag_ms=0) if "bounded_staleness" in must else Plan("strong")
        reported = {verdict.guarantee for verdict in promises.judge(History(plan, operations)) if verdict.violations}
        assert must <= reported <= must | may, (seed, reported)
    assert tried > 50


# -- cost --------------------------------------------------------------------------------------------------------------


def test_the_cost_per_operation_does_not_grow_with_the_history() -> None:
    def seconds(length: int) -> float:
        history = World(1, "session", length=length, keys=10, sessions=10).history()
        began = time.process_time()
        assert not promises.broken(Plan("session"), promises.judge(history))
        return time.process_time() - began

    short, long = seconds(10_000), seconds(100_000)
    print(f"\n10,000 operations {short:.2f} s, 100,000 operations {long:.2f} s: {long / short:.1f} times as long")
    assert long < 50 * short  # a quadratic cost would be 100 times as high
