"""How much a read may lack: bounded staleness, and nothing at all in real time."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict

from broker.position import START, Position
from lab.checking.history import History, Timeline
from lab.checking.operation import Operation
from lab.checking.verdict import Tally, Verdict, told


def bounded_staleness(history: History) -> Verdict:
    """A read lacks no write older than the plan's bounds, by what had been acknowledged when it was invoked.

    ``max_lag_ms``: every write acknowledged that long before is shown. ``max_lag_versions``: every write is shown but
    the newest so many. Where both bound, both hold.
    """
    tally = Tally("bounded_staleness")
    plan = history.plan
    if plan.max_lag_ms is None and plan.max_lag_versions is None:
        return tally.verdict()
    by_key = history.writes_by_key()
    timelines = {key: Timeline.of(writes) for key, writes in by_key.items()}
    everything = Timeline.of(history.writes)
    for read in history.reads:
        tally.tested += 1
        if plan.max_lag_ms is not None and read.key in timelines:
            old = timelines[read.key].before(read.invoked_us - round(plan.max_lag_ms * 1000))
            if old is not None and old.seen > read.seen:
                age_ms = (read.invoked_us - old.returned_us) / 1000
                tally.violated(f"{told(old)}; {age_ms:.0f} ms after that was acknowledged, {told(read)}", old, read)
                continue
        newest = everything.before(read.invoked_us)
        if plan.max_lag_versions is not None and newest is not None:
            missed = _missed(by_key.get(read.key, []), read, newest.seen, plan.max_lag_versions)
            if missed is not None:
                count = newest.seen.version - missed.seen.version
                words = f"{told(missed)}; {count} versions later, {told(newest)}; then {told(read)}"
                tally.violated(words, *dict.fromkeys((missed, newest, read)))
    return tally.verdict()


def _missed(writes: list[Operation], read: Operation, newest: Position, versions: int) -> Operation | None:
    """The newest write of the key that the read had to show and did not."""
    last = Position(newest.epoch, max(0, newest.version - versions))
    for write in reversed(writes[: bisect_right(writes, last, key=lambda found: found.position or START)]):
        if write.seen <= read.seen:
            return None
        if write.returned_us <= read.invoked_us:
            return write
    return None


def real_time(history: History) -> Verdict:
    """What returned before an operation was invoked comes before it: reads and writes of a key, and writes in the log.

    Together with the log's order of versions this is linearizability of each key (Herlihy and Wing, TOPLAS 1990).
    """
    tally = Tally("real_time")
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in (*history.writes, *history.reads):
        by_key[operation.key].append(operation)
    timelines = {key: Timeline.of(operations) for key, operations in by_key.items()}
    for read in history.reads:
        tally.tested += 1
        before = timelines[read.key].before(read.invoked_us - 1)
        if before is not None and before.seen > read.seen:
            tally.violated(f"{told(before)}; after that had returned, {told(read)}", before, read)
        write = history.writer.get((read.key, read.seen))
        if write is not None and write.invoked_us > read.returned_us:
            tally.violated(f"{told(read)}; after that had returned, {told(write)}", read, write)
    log = Timeline.of(history.writes)
    for write in history.writes:
        tally.tested += 1
        before = log.before(write.invoked_us - 1)
        if before is not None and before.seen > write.seen:
            tally.violated(f"{told(before)}; after that had returned, {told(write)}", before, write)
    return tally.verdict()
