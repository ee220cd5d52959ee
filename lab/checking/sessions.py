"""Checkers of the session guarantees (Terry et al., Session Guarantees, PDIS 1994).

Monotonic writes and writes-follow-reads are promises about databases, so they are tested on the content of each node: a
node that shows a write must also show its writer's earlier operations.
"""

from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter, itemgetter
from typing import NamedTuple

from lab.checking.history import History, Kind, Operation
from lab.checking.verdict import Tally, describe


def read_your_writes(tally: Tally, history: History) -> None:
    """A read shows the session's last write of the key, or something newer. With quorums, a write counts once enough
    replicas have acknowledged it.
    """
    needed = history.plan.w or 0
    for operations in history.by_session().values():
        written: dict[str, Operation] = {}
        for operation in operations:
            if operation.kind == "write":
                if operation.acks is None or operation.acks >= needed:
                    written[operation.key] = operation
            elif (write := written.get(operation.key)) is not None:
                tally.test(operation.seen >= write.seen, "{}; then {}, which is older", write, operation)


def monotonic_reads(tally: Tally, history: History) -> None:
    """A read never shows an older state of a key than an earlier read of the session."""
    for operations in history.by_session().values():
        newest: dict[str, Operation] = {}
        for read in operations:
            if read.kind == "read":
                before = newest.get(read.key)
                if before is not None:
                    tally.test(read.seen >= before.seen, "{}; then {}: back in time", before, read)
                newest[read.key] = max(read, before or read, key=attrgetter("seen"))


def monotonic_writes(tally: Tally, history: History) -> None:
    """A session's writes are in the log in session order, and no node shows a later one without the earlier ones."""
    for operations in history.by_session().values():
        last: Operation | None = None
        for write in operations:
            if write.kind == "write":
                if last is not None and history.plan.positions:
                    tally.test(write.seen >= last.seen, "{}; then {}, which is before it in the log", last, write)
                last = write
    _check_nodes(tally, history, "write")


def writes_follow_reads(tally: Tally, history: History) -> None:
    """A write is in the log after everything its session had read, and no node shows it without those reads."""
    for operations in history.by_session().values():
        newest: Operation | None = None
        for operation in operations:
            if operation.kind == "read":
                if operation.version and (newest is None or operation.seen > newest.seen):
                    newest = operation
            elif newest is not None and history.plan.positions:
                tally.test(operation.seen > newest.seen, "{}; then {}, no later in the log", newest, operation)
    _check_nodes(tally, history, "read")


class _Required(NamedTuple):
    """A node must show ``cause`` or something newer of its key, since ``shown`` showed the write ``after`` it."""

    cause: Operation
    after: Operation
    shown: Operation


def _check_nodes(tally: Tally, history: History, causes: Kind) -> None:
    """Require the writer's earlier ``causes`` from each node that shows a write."""
    sessions = history.by_session()
    place = {found.index: at for operations in sessions.values() for at, found in enumerate(operations)}
    through: dict[tuple[str, int], int] = defaultdict(int)  # by node and session: operations already required
    required: dict[tuple[str, str], _Required] = {}
    due: dict[int, _Required] = {}
    for returned, read in _moments(history.reads):
        if not returned:
            if (found := required.get((read.node, read.key))) is not None:
                due[read.index] = found
            continue
        if (expected := due.pop(read.index, None)) is not None:
            tally.tested += 1
            if read.seen < expected.cause.seen:
                words = "; ".join(map(describe, expected)) + f"; then {describe(read)}"
                tally.violated(words, *dict.fromkeys((*expected, read)))
        if (write := history.writer.get((read.key, read.seen))) is None:
            continue
        operations, reached = sessions[write.session], place[write.index]
        for cause in operations[through[read.node, write.session] : reached]:
            if cause.kind == causes and cause.seen.version:
                known = required.get((read.node, cause.key))
                if known is None or cause.seen > known.cause.seen:
                    required[read.node, cause.key] = _Required(cause, write, read)
        through[read.node, write.session] = max(reached, through[read.node, write.session])


def _moments(reads: list[Operation]) -> Iterator[tuple[bool, Operation]]:
    """Return invocations and returns in time order; at equal times invocations come first."""
    moments = [(read.invoked_us, False, read) for read in reads] + [(read.returned_us, True, read) for read in reads]
    return ((returned, read) for _, returned, read in sorted(moments, key=itemgetter(0, 1)))
