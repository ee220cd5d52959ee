"""What a session is promised about the order of its writes, in the log and in every store.

Terry et al., Session Guarantees, PDIS 1994: monotonic writes and writes-follow-reads are promises about databases, so
they are tested on what each node shows: whoever shows a write must also show what the writer had done before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal, NamedTuple

from lab.checking.history import History
from lab.checking.operation import Kind, Operation
from lab.checking.verdict import Tally, Verdict, told


class _Required(NamedTuple):
    """What a node has to show of a key: no less than ``cause``, since ``shown`` showed the write ``after`` it."""

    cause: Operation
    after: Operation
    shown: Operation


def monotonic_writes(history: History) -> Verdict:
    """A session's writes are in the log in its own order, and no node shows a later one without the earlier ones."""
    tally = Tally("monotonic_writes")
    for operations in history.by_session().values():
        last: Operation | None = None
        for write in (found for found in operations if found.kind == "write"):
            if last is not None:
                tally.tested += 1
                if write.seen < last.seen:
                    tally.violated(f"{told(last)}; then {told(write)}, which is before it in the log", last, write)
            last = write
    _check_nodes(history, "write", tally)
    return tally.verdict()


def writes_follow_reads(history: History) -> Verdict:
    """A write is in the log after what its session had read, and no node shows it without that."""
    tally = Tally("writes_follow_reads")
    for operations in history.by_session().values():
        newest: Operation | None = None
        for operation in operations:
            if operation.kind == "read":
                if operation.version and (newest is None or operation.seen > newest.seen):
                    newest = operation
            elif newest is not None:
                tally.tested += 1
                if operation.seen <= newest.seen:
                    tally.violated(f"{told(newest)}; then {told(operation)}, no later in the log", newest, operation)
    _check_nodes(history, "read", tally)
    return tally.verdict()


def _check_nodes(history: History, causes: Kind, tally: Tally) -> None:
    """Hold each node to what it has shown before: the ``causes`` that the writer of a shown write had before it."""
    sessions = history.by_session()
    place = {found.index: at for operations in sessions.values() for at, found in enumerate(operations)}
    through: dict[tuple[str, int], int] = defaultdict(int)  # of each session: what of it a node is held to already
    required: dict[tuple[str, str], _Required] = {}
    due: dict[int, _Required] = {}
    for moment, read in _moments(history.reads):
        if moment == "invoked":
            if (found := required.get((read.node, read.key))) is not None:
                due[read.index] = found
            continue
        if (held_to := due.pop(read.index, None)) is not None:
            tally.tested += 1
            if read.seen < held_to.cause.seen:
                words = f"{told(held_to.cause)}; {told(held_to.after)}; {told(held_to.shown)}; then {told(read)}"
                tally.violated(words, *dict.fromkeys((*held_to, read)))
        write = history.writer.get((read.key, read.seen))
        if write is None:
            continue
        operations, reached = sessions[write.session], place[write.index]
        for cause in operations[through[read.node, write.session] : reached]:
            if cause.kind == causes and cause.seen.version:
                known = required.get((read.node, cause.key))
                if known is None or cause.seen > known.cause.seen:
                    required[read.node, cause.key] = _Required(cause, write, read)
        through[read.node, write.session] = max(reached, through[read.node, write.session])


def _moments(reads: list[Operation]) -> Iterator[tuple[Literal["invoked", "returned"], Operation]]:
    """Beginnings and ends in the order of time; at one time, ends first, so that nothing counts as before by chance."""
    moments: list[tuple[int, int, Operation]] = [(read.invoked_us, 0, read) for read in reads]
    moments += [(read.returned_us, 1, read) for read in reads]
    moments.sort(key=lambda found: found[:2])
    for _, ends, read in moments:
        yield ("returned" if ends else "invoked"), read
