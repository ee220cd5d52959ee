"""Which processor cores a node's threads run on (Linux; elsewhere the system decides)."""

from __future__ import annotations

import os
import sys

_ALL: set[int] = set()


def share_one(number: int) -> None:
    """Keep this process, and the threads it will start, on one core: the ``number``-th, counted around.

    Only one thread of an interpreter runs at a time, so the threads that answer requests gain nothing from a second
    core, and each hand-over to it costs more than many an answer.
    """
    if sys.platform == "linux":
        _ALL.update(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {sorted(_ALL)[number % len(_ALL)]})


def use_any() -> None:
    """Let the calling thread run wherever there is room: it has to be on time whatever the others do."""
    if sys.platform == "linux" and _ALL:
        os.sched_setaffinity(0, _ALL)
