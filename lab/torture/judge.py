"""What must not have happened, whatever was broken: held against everything that was seen, and the log itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from broker.position import Position
from lab.checking import promises
from lab.checking.convergence import convergence
from lab.checking.history import History, Plan, Timeline
from lab.checking.operation import Operation
from lab.checking.verdict import Tally, Verdict, told
from lab.torture.floor import Floors
from lab.torture.ledger import Ledger

VERDICTS = ("lost", "doubled", "reordered", "early", "regressed", "diverged")


def judge(history: History, ledger: Ledger, floors: Floors) -> list[Verdict]:
    """A verdict for each of ``VERDICTS``."""
    return [
        lost(history, ledger),
        doubled(history, ledger),
        reordered(history, ledger),
        early(history, floors),
        regressed(history),
        replace(convergence(history), guarantee="diverged"),
    ]


def lost(history: History, ledger: Ledger) -> Verdict:
    """Every acknowledged write is in the log where its answer said, and at the end in the primary's store."""
    tally = Tally("lost")
    for write in history.writes:
        tally.tested += 1
        entry = None if write.position is None else ledger.at.get(write.position)
        if entry is None or (entry.key, entry.value) != (write.key, f'"{write.value}"'):
            tally.violated(f"{told(write)}; the log has {entry and entry.value} of {entry and entry.key} there", write)
    for final in history.finals:
        _compare(tally, final, ledger)
    return tally.verdict()


def doubled(history: History, ledger: Ledger) -> Verdict:
    """No write is in the log twice, no position is used twice, and none is left out."""
    tally = Tally("doubled")
    holding = ledger.holding()
    for write in history.operations:
        if write.kind == "write" and write.value is not None:
            tally.tested += 1
            positions = holding.get((write.key, write.value), [])
            if len(positions) > 1:
                tally.violated(f"{told_briefly(write)} is in the log at {', '.join(map(str, positions))}", write)
    before = ledger.since
    for entry in ledger.entries:
        tally.tested += 1
        if entry.goes_on_from != before and not before.is_followed_by(entry.position):
            tally.violated(f"in the log {entry.position} comes after {before}")
        before = entry.position
    return tally.verdict()


def reordered(history: History, ledger: Ledger) -> Verdict:
    """A store shows what the log says of its position, and writes are in the log in the order of real time."""
    tally = Tally("reordered")
    for read in history.reads:
        _compare(tally, read, ledger)
    log = Timeline.of(history.writes)
    for write in history.writes:
        tally.tested += 1
        before = log.before(write.invoked_us - 1)
        if before is not None and before.seen >= write.seen:
            tally.violated(f"{told(before)}; after that had returned, {told(write)}", before, write)
    return tally.verdict()


def early(history: History, floors: Floors) -> Verdict:
    """No replica is seen at a position sooner after its write was sent than its delay can have been."""
    tally = Tally("early")
    writes = {write.position: write for write in history.writes}
    for read in history.reads:
        write = writes.get(read.position)
        if write is None or read.returned_us < write.invoked_us:
            continue
        least_ms = floors.least_ms(read.node, write.invoked_us, read.returned_us)
        after_ms = (read.returned_us - write.invoked_us) / 1000
        if least_ms:
            tally.tested += 1
        if after_ms < least_ms:
            words = (
                f"{told(write)}; {after_ms:.1f} ms later {read.node} was there, with a delay of {least_ms:g} ms or more"
            )
            tally.violated(words, write, read)
    return tally.verdict()


def regressed(history: History) -> Verdict:
    """No node is seen at an earlier position than before."""
    tally = Tally("regressed")
    by_node: dict[str, list[Operation]] = defaultdict(list)
    for read in (*history.reads, *history.finals):
        by_node[read.node].append(read)
    for reads in by_node.values():
        timeline = _Positions(reads)
        for read in reads:
            tally.tested += 1
            before = timeline.before(read.invoked_us)
            if before is not None and _position(before) > _position(read):
                tally.violated(f"{read.node} was at {before.position}, and later at {read.position}", before, read)
    return tally.verdict()


def by_level(plans: dict[int, Plan], history: History) -> dict[str, list[Verdict]]:
    """What each level promises, judged by its own sessions' reads and everybody's writes."""
    found: dict[str, list[Verdict]] = {}
    for plan in dict.fromkeys(plans.values()):
        own = [op for op in history.operations if op.kind != "read" or plans.get(op.session) == plan]
        found[plan.level] = promises.judge(History(plan, own))
    return found


def placed(operations: Iterable[Operation], ledger: Ledger) -> list[Operation]:
    """The operations, with the epoch of each record that was read: a log may go on in a later one."""
    found = []
    for operation in operations:
        if operation.kind in {"read", "final"} and operation.version and operation.position is not None:
            entry = ledger.newest(operation.key, operation.position)
            if entry is not None and entry.position.version == operation.version:
                operation = replace(operation, epoch=entry.position.epoch)  # noqa: PLW2901 - the same, with its place
        found.append(operation)
    return found


def _compare(tally: Tally, read: Operation, ledger: Ledger) -> None:
    """What was read, beside what the log says of the position that the store was at."""
    if read.position is None or read.position < ledger.since:
        return
    tally.tested += 1
    entry = ledger.newest(read.key, read.position)
    wanted = (0, None) if entry is None else (entry.position.version, entry.value)
    shown = (read.version, None if read.value is None else f'"{read.value}"')
    if shown != wanted:
        says = "nothing" if entry is None else f"{entry.value} of version {entry.position.version}"
        tally.violated(f"{told(read)} with value {read.value} at {read.position}, where the log has {says}", read)


def told_briefly(write: Operation) -> str:
    """A write whose outcome may be unknown, in words."""
    return f"what session {write.session} wrote of {write.key}, {write.value},"


class _Positions:
    """The highest position that was seen by each moment."""

    def __init__(self, reads: list[Operation]) -> None:
        self._timeline = Timeline()
        for read in sorted(reads, key=lambda found: found.returned_us):
            newest = self._timeline.newest[-1] if self._timeline.newest else read
            self._timeline.returned_us.append(read.returned_us)
            self._timeline.newest.append(read if _position(read) >= _position(newest) else newest)

    def before(self, at_us: int) -> Operation | None:
        return self._timeline.before(at_us - 1)


def _position(read: Operation) -> Position:
    if read.position is None:
        raise AssertionError("an operation that is ok has a position")
    return read.position
