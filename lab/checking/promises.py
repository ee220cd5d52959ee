"""The checker of each guarantee, and the guarantees that each level promises."""

from collections.abc import Callable

from broker.delay.models import Order
from lab.checking import sessions, stores
from lab.checking.history import History
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
    "eventual": _ALWAYS,
}


def judge(history: History) -> list[Verdict]:
    return [verdict(guarantee, check, history) for guarantee, check in CHECKERS.items()]


def promised(level: str, order: Order = "log") -> set[str]:
    """Return the guarantees of a level if replicas apply in this order.

    In order of arrival a replica shows some writes without earlier ones. Level ``prefix`` does not read from it;
    ``session`` and ``bounded`` do, and then make only promises that do not depend on the order.
    """
    ordered = order == "log" or level in {"strong", "prefix"}
    return PROMISES[level] if ordered else PROMISES[level] - _ORDERED


def broken(level: str, verdicts: list[Verdict], order: Order = "log") -> list[Verdict]:
    return [found for found in verdicts if found.judgement == "violated" and found.guarantee in promised(level, order)]
