"""Consistent prefix: a store is at some point of the history, and shows all of it up to there, and nothing beyond."""

from __future__ import annotations

from lab.checking.history import History, newest_through
from lab.checking.verdict import Tally, Verdict, told


def consistent_prefix(history: History) -> Verdict:
    """A read at a position shows exactly the key's newest write up to that position."""
    tally = Tally("consistent_prefix")
    writes = history.writes_by_key()
    for read in (*history.reads, *history.finals):
        position = read.position
        if position is None:
            continue
        tally.tested += 1
        if read.seen > position:
            tally.violated(f"{told(read)}, which is beyond the store's position {position}", read)
        elif (expected := newest_through(writes.get(read.key, []), position)) and expected.seen > read.seen:
            tally.violated(f"{told(expected)}; {told(read)} at {position}, which lacks it", expected, read)
    return tally.verdict()
