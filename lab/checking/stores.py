"""Checkers of the stores' content: how stale a read is, which writes exist, and whether all nodes converge."""

from bisect import bisect_right
from collections import defaultdict

from broker.position import START, Position
from lab.checking.history import History, Operation, Timeline, newest_through
from lab.checking.verdict import Tally, describe


def bounded_staleness(tally: Tally, history: History) -> None:
    """A read misses no acknowledged write older than the plan's bounds when it is invoked: it shows every write
    acknowledged ``max_lag_ms`` before, and every write but the newest ``max_lag_versions``.
    """
    plan = history.plan
    versions = plan.max_lag_versions if plan.positions else None
    if plan.max_lag_ms is None and versions is None:
        return
    by_key = history.writes_by_key()
    timelines = {key: Timeline(writes) for key, writes in by_key.items()}
    everything = Timeline(history.writes)
    for read in history.reads:
        tally.tested += 1
        if plan.max_lag_ms is not None and read.key in timelines:
            old = timelines[read.key].by(read.invoked_us - round(plan.max_lag_ms * 1000))
            if old is not None and old.seen > read.seen:
                age_ms = (read.invoked_us - old.returned_us) / 1000
                words = f"{describe(old)}; {age_ms:.0f} ms after that was acknowledged, {describe(read)}"
                tally.violated(words, old, read)
                continue
        newest = everything.by(read.invoked_us)
        if versions is not None and newest is not None:
            missed = _missed(by_key.get(read.key, []), read, newest.seen, versions)
            if missed is not None:
                count = newest.seen.version - missed.seen.version
                words = f"{describe(missed)}; {count} versions later, {describe(newest)}; then {describe(read)}"
                tally.violated(words, *dict.fromkeys((missed, newest, read)))


def _missed(writes: list[Operation], read: Operation, newest: Position, versions: int) -> Operation | None:
    last = Position(newest.epoch, max(0, newest.version - versions))
    for write in reversed(writes[: bisect_right(writes, last, key=lambda found: found.position or START)]):
        if write.seen <= read.seen:
            return None
        if write.returned_us <= read.invoked_us:
            return write
    return None


def real_time(tally: Tally, history: History) -> None:
    """An operation that returned before another was invoked precedes it: for each key, and for all writes in the log.
    With the log's order this is linearizability of each key (Herlihy and Wing, TOPLAS 1990).
    """
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in (*history.writes, *history.reads):
        by_key[operation.key].append(operation)
    timelines = {key: Timeline(operations) for key, operations in by_key.items()}
    for read in history.reads:
        _check_precedes(tally, timelines[read.key].before(read.invoked_us), read)
        write = history.writer.get((read.key, read.seen))
        if write is not None and write.invoked_us > read.returned_us:
            tally.violated(f"{describe(read)}; after that had returned, {describe(write)}", read, write)
    log = Timeline(history.writes)
    for write in history.writes if history.plan.positions else ():
        _check_precedes(tally, log.before(write.invoked_us), write)


def _check_precedes(tally: Tally, earlier: Operation | None, later: Operation) -> None:
    first = earlier or later
    tally.test(first.seen <= later.seen, "{}; after that had returned, {}", first, later)


def consistent_prefix(tally: Tally, history: History) -> None:
    """A read shows exactly the key's newest write up to the store's position, and nothing beyond it."""
    writes = history.writes_by_key()
    for read in (*history.reads, *history.finals):
        position = read.position
        if position is None:
            continue
        tally.tested += 1
        if read.seen > position:
            tally.violated(f"{describe(read)}, which is beyond the store's position {position}", read)
        elif (expected := newest_through(writes.get(read.key, []), position)) and expected.seen > read.seen:
            tally.violated(f"{describe(expected)}; {describe(read)} at {position}, which lacks it", expected, read)


def no_lost_write(tally: Tally, history: History) -> None:
    """At the end the primary has every acknowledged write, or a newer one of the key; no two share a position."""
    finals = {final.key: final for final in history.finals}
    holder: dict[object, Operation] = {}
    for write in history.writes:
        final = finals.get(write.key)
        if final is None:
            continue
        tally.test(final.seen >= write.seen, "{}; {}", write, final)
        other = holder.setdefault(write.position, write)
        if write.position is not None and other is not write:
            tally.violated(f"{describe(other)}, and {describe(write)}: two writes at one position", other, write)


def no_phantom_write(tally: Tally, history: History) -> None:
    """Every value that a read shows was written; a write with an unknown outcome can be shown."""
    unknown: dict[tuple[str, str | None], list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.kind == "write" and operation.outcome == "unknown":
            unknown[operation.key, operation.value].append(operation)
    for read in (*history.reads, *history.finals):
        if not read.version:
            continue
        tally.tested += 1
        write = history.writer.get((read.key, read.seen))
        if write is None:
            possible = unknown.get((read.key, read.value), [])
            if not any(found.invoked_us <= read.returned_us for found in possible):
                tally.violated(f"{describe(read)}, which no session wrote", read)
        elif write.value != read.value:
            words = f"{describe(write)} with value {write.value}; {describe(read)} with value {read.value}"
            tally.violated(words, write, read)


def convergence(tally: Tally, history: History) -> None:
    """At the end, every node has the same position and digest."""
    failed = [found for found in history.digests if found.outcome != "ok"]
    if failed:
        tally.unknown(f"{failed[0].node} did not report its digest", *failed)
        return
    for found in history.digests:
        first = history.digests[0]
        if found.position != first.position:
            positions = f"{first.node} was at {first.position}, {found.node} at {found.position}"
            tally.unknown(f"{positions}: still being written to?", first, found)
            return
        tally.tested += 1
        if found.digest != first.digest:
            where = "" if first.position is None else f"at {first.position}, "
            tally.violated(f"{where}{first.node} and {found.node} hold different data", first, found)
