"""Which level promises which guarantee, and the checker of each."""

from __future__ import annotations

from collections.abc import Callable

from broker.delay import Order
from lab.checking import bounds, causality, convergence, existence, prefix, sessions
from lab.checking.history import History
from lab.checking.verdict import Verdict

CHECKERS: dict[str, Callable[[History], Verdict]] = {
    "read_your_writes": sessions.read_your_writes,
    "monotonic_reads": sessions.monotonic_reads,
    "monotonic_writes": causality.monotonic_writes,
    "writes_follow_reads": causality.writes_follow_reads,
    "consistent_prefix": prefix.consistent_prefix,
    "bounded_staleness": bounds.bounded_staleness,
    "real_time": bounds.real_time,
    "no_lost_write": existence.no_lost_write,
    "no_phantom_write": existence.no_phantom_write,
    "convergence": convergence.convergence,
}
# One primary orders all writes, so that no level can lose one, invent one or end up divided.
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
    """A verdict for each guarantee, promised or not."""
    return [check(history) for check in CHECKERS.values()]


def promised(level: str, order: Order = "log") -> set[str]:
    """What the level promises of replicas that apply in this order.

    In order of arrival a replica shows some writes without those before them. Level ``prefix`` does not read from it;
    ``session`` and ``bounded`` do, and promise then what does not depend on the order.
    """
    ordered = order == "log" or level in {"strong", "prefix"}
    return PROMISES[level] if ordered else PROMISES[level] - _ORDERED


def broken(level: str, verdicts: list[Verdict], order: Order = "log") -> list[Verdict]:
    """The verdicts that the level must not have."""
    return [found for found in verdicts if found.judgement == "violated" and found.guarantee in promised(level, order)]
