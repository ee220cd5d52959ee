"""The judges of a graded program: what it showed is compared with the log, and with what was done to it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from broker.entry import Entry
from broker.position import START, Position
from lab.checking.history import History, Operation, Timeline
from lab.checking.verdict import Verdict
from lab.checking.verdict import verdict as tallied
from lab.grade import lateness, words
from lab.grade.fault import Fault, verdict
from lab.grade.record import Death, Record
from lab.torture import judge as torture
from lab.torture.ledger import Ledger
from lab.torture.losses import split


def judge(record: Record) -> list[Verdict]:
    """Return the verdicts of the record's level; the first violated one has the counterexample to show."""
    return _JUDGES[record.level](record)


def passed(verdicts: Iterable[Verdict]) -> bool:
    """What was not tested is not passed."""
    judgements = [found.judgement for found in verdicts]
    return bool(judgements) and all(found == "held" for found in judgements)


def observations(record: Record) -> list[Operation]:
    """Return everything that showed a position; polls as reads of no key."""
    polls = [poll.as_read(record.node) for poll in record.polls if poll.position is not None]
    return [*polls, *record.history.reads, *record.history.finals]


def serves(record: Record) -> Verdict:
    """Everything that was written is shown, nothing else, and all of it is acknowledged."""
    shown = record.history.finals
    faults = [*_unfinished(record, _differs), *_wrong(record, record.history.reads)]
    return verdict("serves", _tested(record, shown), faults)


def content(record: Record, seen: list[Operation]) -> Verdict:
    """What is shown is what the log has at the shown position."""
    since = record.ledger.since
    tested = sum(bool(read.key) and (read.position or START) >= since for read in seen)
    return verdict("content", tested, _wrong(record, seen))


def regressed(record: Record, seen: list[Operation]) -> Verdict:
    """No answer shows an earlier position than an answer before it."""
    found = tallied("regressed", torture.regressed, History(record.history.plan, seen))
    if not found.violations:
        return found
    before, after = found.operations
    went_back = f"at {record.time(before.returned_us)} it was at {before.position}, "
    went_back += f"and at {record.time(after.returned_us)} at {after.position} again"
    return replace(found, words=went_back + words.since_kill(record, before.returned_us, after.returned_us))


def complete(record: Record, lacks: "Lacks") -> Verdict:
    """At the end it has caught up with the log, shows the last value of every key, and has acknowledged everything."""
    return verdict("complete", _tested(record, record.history.finals), _unfinished(record, lacks))


def durable(record: Record) -> Verdict:
    """Whatever was acknowledged when the program was killed is there after its restart."""
    tested, faults = 0, list[Fault]()
    for death in record.deaths:
        acknowledged = [entry for entry in _changes(record.ledger) if death.acknowledged(entry.position)]
        tested += len(acknowledged)
        faults += _forgotten(record, death, acknowledged)
    return verdict("durable", tested, faults)


def old_epoch(record: Record, seen: list[Operation]) -> Verdict:
    """Once an epoch was shown, nothing of an earlier one is."""
    newest = Timeline(seen, _epoch)
    tested, faults = 0, list[Fault]()
    for read in seen:
        before = newest.before(read.invoked_us)
        if before is None or _epoch(before) <= Position(record.ledger.since.epoch, 0):
            continue
        tested += 1
        if _epoch(before) > _epoch(read):
            faults.append(Fault(words.went_back(record, before, read), [before, read]))
        elif read.key and _differs(record.ledger, read, None):
            shown = words.source(record.ledger, read)
            if shown is not None and words.was_dropped(record.ledger, shown, read):
                faults.append(Fault(words.kept(record, shown, read), [read]))
    return verdict("old_epoch", tested, faults)


def _epoch(read: Operation) -> Position:
    return Position(read.position.epoch if read.position else 0, 0)


Lacks = Callable[[Ledger, Operation, Entry | None], bool]  # whether a read misses the newest entry of its key


def _differs(ledger: Ledger, read: Operation, _: Entry | None) -> bool:
    entry = ledger.newest(read.key, read.position or START)
    return (read.version, read.value) != (words.version(entry), words.value(entry))


def _is_behind(ledger: Ledger, read: Operation, entry: Entry | None) -> bool:
    """Whether the read lacks this change of its key; a version may be too high: counted twice is another fault."""
    if entry is None:
        return False
    if read.version:
        return read.version < entry.position.version
    at = read.position or START
    return entry.op == "set" and (at < entry.position or ledger.newest(read.key, at) is not None)


def _wrong(record: Record, seen: Iterable[Operation]) -> Iterator[Fault]:
    ledger = record.ledger
    for read in sorted(seen, key=lambda found: found.returned_us):
        at = read.position or START
        if at > ledger.since and at not in ledger.at:
            yield Fault(f"at {record.time(read.returned_us)} it was at {at}, which the log does not have", [read])
        elif read.key and at >= ledger.since and _differs(ledger, read, None):
            yield Fault(words.difference(record, read), [read])


def _forgotten(record: Record, death: Death, acknowledged: list[Entry]) -> Iterator[Fault]:
    """The last acknowledged one first."""
    reads = {read.key: read for read in death.reads if read.outcome == "ok"}
    newest = {entry.key: entry for entry in acknowledged}
    for entry in reversed(newest.values()):
        read = reads.get(entry.key)
        if read is not None and _is_behind(record.ledger, read, entry):
            shown = words.shown_after(entry, read)
            yield Fault(f"{words.killed(record, death, entry.position)}; after the restart {shown}", [read])
    first_pending = min(death.pending, default=None)
    prefix = [e.position for e in acknowledged if first_pending is None or e.position < first_pending]
    if prefix and (death.first.position or START) < prefix[-1]:
        shown = f"it was at {death.first.position}" if death.first.position else f"no answer: {death.first.words}"
        yield Fault(f"{words.killed(record, death, prefix[-1])}; after the restart {shown}", _first(record, death))


def _first(record: Record, death: Death) -> list[Operation]:
    return [] if death.first.position is None else [death.first.as_read(record.node)]


def _unfinished(record: Record, lacks: Lacks) -> Iterator[Fault]:
    finals = {read.key: read for read in record.history.finals}
    newest = {entry.key: entry for entry in _changes(record.ledger)}
    if record.halted:
        yield Fault("it stopped, although nothing was missing from the log", [])
        return
    for key, why in record.unanswered.items():
        yield Fault(f"at the end GET {words.path(key)} was not answered: {why}", [])
    if not finals:
        yield Fault("at the end nothing was answered", [])
        return
    last = min(finals.values(), key=lambda read: read.position or START)
    if (last.position or START) < record.head:
        yield Fault(words.stalled(record, last), [last])
    for key, entry in reversed(newest.items()):
        if key in finals and lacks(record.ledger, finals[key], entry):
            yield Fault(words.difference(record, finals[key]), [finals[key]])
    for key in finals.keys() - newest.keys():
        if lacks(record.ledger, finals[key], None):
            yield Fault(words.difference(record, finals[key]), [finals[key]])
    yield from _unacknowledged(record)


def _unacknowledged(record: Record) -> Iterator[Fault]:
    if record.pending is None:
        yield Fault(f"it has no consumer group {record.node}, so nothing is acknowledged", [])
    elif record.pending:
        yield Fault(words.pending(record, record.pending), [])


def _changes(ledger: Ledger) -> list[Entry]:
    return [entry for entry in ledger.entries if entry.op != "epoch"]


def _tested(record: Record, shown: list[Operation]) -> int:
    return len(shown) if _changes(record.ledger) else 0


def _ordered(record: Record) -> list[Verdict]:
    seen = observations(record)
    return [content(record, seen), regressed(record, seen), complete(record, _differs)]


def _after_resets(record: Record) -> list[Verdict]:
    seen = observations(record)
    return [old_epoch(record, seen), content(record, seen), complete(record, _differs)]


def _without_hole(record: Record) -> list[Verdict]:
    found = [content(record, observations(record))]
    return found if record.halted else [*found, complete(record, _differs)]


def _after_failovers(record: Record) -> list[Verdict]:
    """What the log has lost may have been shown; a program that was there may also stop, as at a gap."""
    kept, gone = split(observations(record), record.ledger.lost_at)
    found = [content(record, kept)]
    return found if record.halted and gone else [*found, complete(record, _differs)]


_JUDGES: dict[int, Callable[[Record], list[Verdict]]] = {
    1: lambda record: [serves(record)],
    2: _ordered,
    3: lambda record: [durable(record), complete(record, _is_behind)],
    4: _ordered,
    5: lateness.judge,
    6: _after_resets,
    7: _without_hole,
    8: _after_failovers,
}
