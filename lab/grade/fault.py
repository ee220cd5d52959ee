"""A fault of a graded program, and the verdict on all of them."""

from collections.abc import Iterable
from typing import NamedTuple

from lab.checking.history import Operation
from lab.checking.verdict import Judgement, Verdict


class Fault(NamedTuple):
    words: str
    operations: list[Operation]


def verdict(guarantee: str, tested: int, faults: Iterable[Fault], held: str = "") -> Verdict:
    """The first of the faults is the counterexample. ``held``: what to say without any."""
    found = list(faults)
    judgement: Judgement = "violated" if found else "held" if tested else "not tested"
    first = found[0] if found else Fault(held, [])
    return Verdict(guarantee, judgement, tested, len(found), first.words, first.operations)
