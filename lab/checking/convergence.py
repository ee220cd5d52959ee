"""Convergence: when writes have stopped, all nodes hold the same."""

from __future__ import annotations

from lab.checking.history import History
from lab.checking.verdict import Tally, Verdict

_GUARANTEE = "convergence"


def convergence(history: History) -> Verdict:
    """At the end, at one position, every node has the same digest."""
    failed = [found for found in history.digests if found.outcome != "ok"]
    if failed:
        return Verdict(_GUARANTEE, "unknown", 0, words=f"{failed[0].node} did not say what it holds", operations=failed)
    tally = Tally(_GUARANTEE)
    for found in history.digests:
        first = history.digests[0]
        if found.position != first.position:
            words = (
                f"{first.node} was at {first.position} and {found.node} at {found.position}: still being written to?"
            )
            return Verdict(_GUARANTEE, "unknown", 0, words=words, operations=[first, found])
        tally.tested += 1
        if found.digest != first.digest:
            tally.violated(f"at {first.position}, {first.node} and {found.node} hold different data", first, found)
    return tally.verdict()
