"""Verdicts on a torture run: compares all observations with the log and with the configured delays."""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from broker.position import START, Position
from lab.checking import promises
from lab.checking.history import History, Operation, Plan, PlanLevel, Timeline
from lab.checking.stores import convergence
from lab.checking.verdict import Tally, Verdict, describe, verdict
from lab.checking.workload import SESSIONS_APART
from lab.torture.ledger import Ledger
from lab.torture.losses import Losses

# A replica that is partitioned or restarting keeps its previous delay until it learns the new one.
_LEARNS_WITHIN_US = 15_000_000
_STALLED_US = 30_000_000


class Floors:
    """The shortest delay that each replica can have had at each time of a run."""

    def __init__(self, ahead_ms: float, *, can_return: bool = False) -> None:
        """``ahead_ms``: the skew by which a replica's clock can be ahead. ``can_return``: whether a log server can take
        over that lacks a change of delay, so that an earlier one counts again.
        """
        self._ahead_ms = ahead_ms
        self._learns_within_us = math.inf if can_return else _LEARNS_WITHIN_US
        self._set: dict[str, list[tuple[int, float]]] = {}

    def add(self, replica: str, at_us: int, least_ms: float) -> None:
        """Record that from ``at_us`` the replica can have a delay as short as this; call in time order."""
        self._set.setdefault(replica, []).append((at_us, least_ms))

    def least_ms(self, replica: str, since_us: int, until_us: int) -> float:
        """Return the shortest delay that the replica can have had in between; 0 if nothing is known."""
        found = self._set.get(replica, [])
        if not found or found[0][0] > since_us:
            return 0.0
        first = bisect_right(found, (since_us - self._learns_within_us, math.inf)) - 1
        last = bisect_left(found, (until_us, math.inf))
        return max(0.0, min(least for _, least in found[max(0, first) : last]) - self._ahead_ms)


def judge(history: History, ledger: Ledger, floors: Floors, losses: Losses) -> list[Verdict]:
    """``history`` is without the operations at positions that the log lost."""
    return [
        verdict("lost", lost, history, ledger, losses),
        verdict("doubled", doubled, history, ledger, losses),
        verdict("reordered", reordered, history, ledger),
        verdict("early", early, history, floors),
        verdict("regressed", regressed, history),
        verdict("stalled", stalled, history, losses),
        verdict("diverged", convergence, history),
    ]


def lost(tally: Tally, history: History, ledger: Ledger, losses: Losses) -> None:
    """Every acknowledged write is in the log at its position, and at the end in the primary's store; or it was lost
    when another log server took over, and the lab named it.
    """
    for write in history.writes:
        tally.tested += 1
        entry = ledger.at.get(write.position or START)
        if entry is None or (entry.key, entry.value) != (write.key, f'"{write.value}"'):
            logged = f"{entry.value} of {entry.key}" if entry else "nothing"
            tally.violated(f"{describe(write)}; the log has {logged} there", write)
    tally.tested += len(losses.writes)
    for write in losses.concealed:
        tally.violated(
            f"{describe(write)}; another log server took over without it, and the lab did not name it", write
        )
    for position in losses.alleged:
        tally.violated(f"the lab named {position} as lost, but the log has it")
    for final in history.finals:
        _compare(tally, final, ledger)


def doubled(tally: Tally, history: History, ledger: Ledger, losses: Losses) -> None:
    """No write is in the log twice, and no position is used twice or missing."""
    holder: dict[Position | None, Operation] = {}
    for write in (*history.writes, *losses.writes):
        other = holder.setdefault(write.position, write)
        tally.test(other is write, "{}; {}", other, write)
    for position in ledger.changed:
        tally.violated(f"the log's entry {position} was replaced by another one during the run")
    holding = ledger.holding()
    for write in history.operations:
        if write.kind == "write" and write.value is not None:
            tally.tested += 1
            positions = holding.get((write.key, write.value), [])
            if len(positions) > 1:
                written = f"session {write.session}'s write of {write.key}, {write.value},"
                tally.violated(f"{written} is in the log at {', '.join(map(str, positions))}", write)
    before = ledger.since
    for entry in ledger.entries:
        tally.tested += 1
        if entry.goes_on_from != before and not before.is_followed_by(entry.position):
            tally.violated(f"in the log {entry.position} comes after {before}")
        before = entry.position


def reordered(tally: Tally, history: History, ledger: Ledger) -> None:
    """A store matches the log up to its position, and writes are in the log in real-time order."""
    for read in history.reads:
        _compare(tally, read, ledger)
    log = Timeline(history.writes)
    for write in history.writes:
        before = log.before(write.invoked_us)
        held = before is None or before.seen < write.seen
        tally.test(held, "{}; after that had returned, {}", before or write, write)


def early(tally: Tally, history: History, floors: Floors) -> None:
    """No replica is observed at a position sooner after its write was sent than its delay allows."""
    writes = {write.position: write for write in history.writes}
    for read in history.reads:
        write = writes.get(read.position)
        if write is None or read.returned_us < write.invoked_us:
            continue
        least_ms = floors.least_ms(read.node, write.invoked_us, read.returned_us)
        after_ms = (read.returned_us - write.invoked_us) / 1000
        tally.tested += least_ms > 0
        if after_ms < least_ms:
            reached = f"{after_ms:.1f} ms later {read.node} was there, with a delay of {least_ms:g} ms or more"
            tally.violated(f"{describe(write)}; {reached}", write, read)


def regressed(tally: Tally, history: History) -> None:
    """No node is observed at an earlier position than before."""
    by_node: dict[str, list[Operation]] = defaultdict(list)
    for read in (*history.reads, *history.finals):
        by_node[read.node].append(read)
    for reads in by_node.values():
        timeline = Timeline(reads, _position)
        for read in reads:
            tally.tested += 1
            before = timeline.before(read.invoked_us)
            if before is not None and _position(before) > _position(read):
                tally.violated(f"{read.node} was at {before.position}, and later at {read.position}", before, read)


def stalled(tally: Tally, history: History, losses: Losses) -> None:
    """Within 30 s there is an acknowledged write, and every node that is read has the writes from before."""
    sessions = [found for found in history.operations if found.kind in {"write", "read"}]
    if not sessions:
        return
    ends = [history.began_us, max(found.returned_us for found in sessions)]
    moments = sorted([*ends, *(write.returned_us for write in (*history.writes, *losses.writes))])
    for before_us, after_us in pairwise(moments):
        tally.tested += 1
        if after_us - before_us > _STALLED_US:
            tally.violated(f"for {(after_us - before_us) / 1e6:.0f} s no write was acknowledged")
    written = Timeline(history.writes)
    for read in history.reads:
        write = written.by(read.invoked_us - _STALLED_US)
        if write is not None:
            tally.test(_position(read) >= _position(write), "{}; 30 s after that had returned, {}", write, read)


def by_level(plans: dict[int, Plan], history: History) -> dict[PlanLevel, list[Verdict]]:
    """Return the verdicts on each level, from the reads of its sessions and the writes of all sessions."""
    found: dict[PlanLevel, list[Verdict]] = {}
    for plan in dict.fromkeys(plans.values()):
        own = [op for op in history.operations if op.kind != "read" or plans.get(op.session % SESSIONS_APART) == plan]
        found[plan.level] = promises.judge(History(plan, own))
    return found


def placed(operations: Iterable[Operation], ledger: Ledger) -> list[Operation]:
    """Return the operations with the epoch of each record that was read: a log can continue in a later epoch."""
    found = []
    for operation in operations:
        entry = None
        if operation.kind in {"read", "final"} and operation.version and operation.position is not None:
            entry = ledger.newest(operation.key, operation.position)
        known = entry is not None and entry.position.version == operation.version
        found.append(replace(operation, epoch=entry.position.epoch) if entry and known else operation)
    return found


def _compare(tally: Tally, read: Operation, ledger: Ledger) -> None:
    if read.position is None or read.position < ledger.since:
        return
    tally.tested += 1
    entry = ledger.newest(read.key, read.position)
    expected = (0, None) if entry is None else (entry.position.version, entry.value)
    if (read.version, None if read.value is None else f'"{read.value}"') != expected:
        logged = "nothing" if entry is None else f"{entry.value} of version {entry.position.version}"
        tally.violated(f"{describe(read)} with value {read.value} at {read.position}, where the log has {logged}", read)


def _position(read: Operation) -> Position:
    return read.position or START
