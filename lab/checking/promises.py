"""The checker of each guarantee, and the guarantees that each level promises."""

from collections.abc import Callable

from lab.checking import sessions, stores
from lab.checking.history import History, Plan
from lab.checking.verdict import Tally, Verdict, verdict

CHECKERS: dict[str, Callable[[Tally, History], None]] = {
    check.__name__: check
    for check in (
        sessions.read_your_writes,
        sessions.monotonic_reads,
        sessions.monotonic_writes,
        sessions.writes_follow_reads,
        stores.consistent_prefix,
        stores.bounded_staleness,
        stores.real_time,
        stores.no_lost_write,
        stores.no_phantom_write,
        stores.convergence,
    )
}
# One primary orders all writes, so no level can lose or invent a write, or diverge.
_ALWAYS = {"no_lost_write", "no_phantom_write", "convergence"}
_ORDERED = {"consistent_prefix", "monotonic_writes", "writes_follow_reads"}
_PREFIX = _ALWAYS | _ORDERED
PROMISES: dict[str, set[str]] = {
    "strong": _PREFIX | {"read_your_writes", "monotonic_reads", "real_time", "bounded_staleness"},
    "bounded": _PREFIX | {"bounded_staleness"},
    "session": _PREFIX | {"read_your_writes", "monotonic_reads"},
    "prefix": _PREFIX,
    "quorum": _ALWAYS,
    "eventual": _ALWAYS,
}


def judge(history: History) -> list[Verdict]:
    return [verdict(guarantee, check, history) for guarantee, check in CHECKERS.items()]


def promised(plan: Plan) -> set[str]:
    """Return the guarantees of a plan's level if replicas apply in its order, and what is expected beyond them.

    In order of arrival a replica shows some writes without earlier ones. Level ``prefix`` does not read from it;
    ``session`` and ``bounded`` do, and then make only promises that do not depend on the order. Quorums that overlap
    show a write that was acknowledged; a later read need not show a write that was not.
    """
    ordered = plan.order == "log" or plan.level in {"strong", "prefix"}
    overlapping = {"read_your_writes"} if plan.level == "quorum" and plan.quorums_overlap else set()
    kept = PROMISES.get(plan.level, set())
    return (kept if ordered else kept - _ORDERED) | overlapping | set(plan.expected)


def broken(plan: Plan, verdicts: list[Verdict]) -> list[Verdict]:
    kept = promised(plan)
    return [found for found in verdicts if found.judgement == "violated" and found.guarantee in kept]


def untested(plan: Plan, verdicts: list[Verdict]) -> list[str]:
    """Return the expected guarantees that are neither held nor violated."""
    open_ones = {found.guarantee for found in verdicts if found.judgement not in {"held", "violated"}}
    return [guarantee for guarantee in plan.expected if guarantee in open_ones]
