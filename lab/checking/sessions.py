"""What a session is promised about its own reads (Terry et al., Session Guarantees, PDIS 1994)."""

from __future__ import annotations

from lab.checking.history import History
from lab.checking.operation import Operation
from lab.checking.verdict import Tally, Verdict, told


def read_your_writes(history: History) -> Verdict:
    """A read shows the session's own last write of the key, or something newer."""
    tally = Tally("read_your_writes")
    for operations in history.by_session().values():
        written: dict[str, Operation] = {}
        for operation in operations:
            if operation.kind == "write":
                written[operation.key] = operation
            elif (write := written.get(operation.key)) is not None:
                tally.tested += 1
                if operation.seen < write.seen:
                    tally.violated(f"{told(write)}; then {told(operation)}, which is older", write, operation)
    return tally.verdict()


def monotonic_reads(history: History) -> Verdict:
    """A read never shows less of a key than an earlier read of the session did."""
    tally = Tally("monotonic_reads")
    for operations in history.by_session().values():
        newest: dict[str, Operation] = {}
        for operation in operations:
            if operation.kind != "read":
                continue
            before = newest.get(operation.key)
            if before is not None:
                tally.tested += 1
                if operation.seen < before.seen:
                    tally.violated(f"{told(before)}; then {told(operation)}: back in time", before, operation)
                    continue
            newest[operation.key] = operation
    return tally.verdict()
