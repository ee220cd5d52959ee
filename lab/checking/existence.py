"""What was written is there, and what is there was written."""

from __future__ import annotations

from collections import defaultdict

from lab.checking.history import History
from lab.checking.operation import Operation
from lab.checking.verdict import Tally, Verdict, told


def no_lost_write(history: History) -> Verdict:
    """At the end the primary has every acknowledged write, or a newer one of the key; no two share a position."""
    tally = Tally("no_lost_write")
    finals = {final.key: final for final in history.finals}
    holder: dict[object, Operation] = {}
    for write in history.writes:
        final = finals.get(write.key)
        if final is None:
            continue
        tally.tested += 1
        if final.seen < write.seen:
            tally.violated(f"{told(write)}; {told(final)}", write, final)
        other = holder.setdefault(write.position, write)
        if other is not write:
            tally.violated(f"{told(other)}, and {told(write)}: two writes at one position", other, write)
    return tally.verdict()


def no_phantom_write(history: History) -> Verdict:
    """Whatever a read shows was written, with that value; a write whose outcome is unknown may show."""
    tally = Tally("no_phantom_write")
    doubtful: dict[tuple[str, str | None], list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.kind == "write" and operation.outcome == "unknown":
            doubtful[operation.key, operation.value].append(operation)
    for read in (*history.reads, *history.finals):
        if not read.version:
            continue
        tally.tested += 1
        write = history.writer.get((read.key, read.seen))
        if write is None:
            possible = doubtful.get((read.key, read.value), [])
            if not any(found.invoked_us <= read.returned_us for found in possible):
                tally.violated(f"{told(read)}, which nobody wrote", read)
        elif write.value != read.value:
            tally.violated(f"{told(write)} with value {write.value}; {told(read)} with value {read.value}", write, read)
    return tally.verdict()
