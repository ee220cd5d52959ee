"""Sentences about what a program showed, with times since the level began."""

import json
from typing import Any
from urllib.parse import quote

from broker.entry import Entry
from broker.position import START, Position
from lab.checking.history import Operation
from lab.grade.record import Death, Record
from lab.torture.ledger import Ledger
from nodes.http import strict_json

_VALUE_MAX = 40  # characters of a value
_GAPS = 7  # the level


def text(value: Any) -> str:
    """A value as histories have it: a text as it is, everything else as JSON."""
    return value if isinstance(value, str) else strict_json.dumps(value)


def path(key: str) -> str:
    return f"/data/{quote(key, safe='')}"


def value(entry: Entry | None) -> str | None:
    return None if entry is None else text(json.loads(entry.value))


def version(entry: Entry | None) -> int:
    return 0 if entry is None else entry.position.version


def pending(record: Record, positions: tuple[Position, ...]) -> str:
    first, more = positions[0], len(positions) - 1
    entry = record.ledger.at.get(first)
    what = "" if entry is None else f" ({entry.op} {entry.key})".replace(" )", ")")
    said = f"at the end {first}{what} is delivered, but not acknowledged"
    return said if not more else f"{said}, and {more:,} other{'s' * (more > 1)}"


def killed(record: Record, death: Death, position: Position) -> str:
    at_us = acknowledged_us(record, position, death.at_us)
    when = f" at {record.time(at_us)}" if at_us is not None else ""
    return f"{position} was acknowledged{when}; killed at {record.time(death.at_us)}"


def acknowledged_us(record: Record, position: Position, before_us: int) -> int | None:
    times = [mark.at_us for mark in record.marks if is_acknowledgement(mark.words) and position in mark.positions]
    return max((at_us for at_us in times if at_us <= before_us), default=None)


def is_acknowledgement(said: str) -> bool:
    return said.startswith("acknowledged")


def since_kill(record: Record, after_us: int, before_us: int) -> str:
    kills = [death.at_us for death in record.deaths if after_us - 1_000_000 <= death.at_us <= before_us]
    return f"; it was killed at {record.time(kills[-1])}" if kills else ""


def shown_after(entry: Entry, read: Operation) -> str:
    if not read.version:
        return f"key {read.key} is missing"
    if entry.op == "delete":
        return f"key {read.key}, which that deletes, is still there"
    return f"key {read.key} still has version {read.version}, {quoted(read.value)}"


def difference(record: Record, read: Operation) -> str:
    """Say how a read differs from the log at its position, and what that usually means."""
    at, ledger = read.position or START, record.ledger
    expected, found = ledger.newest(read.key, at), source(ledger, read)
    when = "at the end" if read.kind == "final" else f"at {record.time(read.returned_us)}"
    shown = f"version {read.version} of {read.key}, {quoted(read.value)}" if read.version else f"no {read.key}"
    logged = f"{quoted(value(expected))} of {expected.position}" if expected else "nothing"
    return f"{when}, at {at}, it shows {shown}, where the log has {logged}" + _meaning(record, read, expected, found)


def _meaning(record: Record, read: Operation, expected: Entry | None, found: Entry | None) -> str:
    if found is not None and found.position > (read.position or START):
        return f": {found.position} is shown before its position is reached"
    if found is not None and was_dropped(record.ledger, found, read):
        return f": {found.position} is of an epoch that a reset ended"
    missed = _missed(record.ledger, read, expected)
    if missed is not None and (not read.version or (found is not None and found.position < missed.position)):
        return _not_applied(record, read, missed)
    if expected is not None and read.value == value(expected) and read.version > expected.position.version:
        if read.version == (read.position or START).version:
            return ": this is the version of the position, not of the entry that set the key"
        return ": something was applied twice, and counted twice"
    return ""


def _not_applied(record: Record, read: Operation, missed: Entry) -> str:
    if path(read.key) != f"/data/{read.key}" and not _was_shown(record, read.key):
        return f": it never showed it; is the key percent-decoded in GET {path(read.key)}?"
    further = "its position is stored" if missed.position == read.position else f"{read.position} is"
    return f": {missed.position} is not applied, although {further}{_why(record, read, missed)}"


def _was_shown(record: Record, key: str) -> bool:
    return any(read.key == key and read.version for read in (*record.history.reads, *record.history.finals))


def _missed(ledger: Ledger, read: Operation, expected: Entry | None) -> Entry | None:
    """Return the change that a read lacks: the newest of its key, which can be a delete."""
    if expected is not None:
        return expected
    changes = [entry for entry in ledger.of_key(read.key) if entry.position <= (read.position or START)]
    return changes[-1] if changes and changes[-1].op == "delete" else None


def _why(record: Record, read: Operation, missed: Entry) -> str:
    until_us = read.returned_us
    trims = [mark.at_us for mark in record.marks if mark.words.startswith("trimmed") and mark.at_us <= until_us]
    if trims and record.level == _GAPS:
        return f"; the log was trimmed at {record.time(trims[-1])}: a silent hole"
    for death in reversed([found for found in record.deaths if found.at_us <= until_us]):
        if missed.position in death.pending:
            return f"; it was pending when the program was killed at {record.time(death.at_us)}"
    return ""


def source(ledger: Ledger, read: Operation) -> Entry | None:
    """Return the entry that a read shows: of its key, with this value and version."""
    if not read.version:
        return None
    same = [e for e in ledger.of_key(read.key) if e.op == "set" and e.position.version == read.version]
    return next((entry for entry in reversed(same) if value(entry) == read.value), None)


def was_dropped(ledger: Ledger, entry: Entry, read: Operation) -> bool:
    """Whether a reset removed this entry before the position of the read."""
    cut = ledger.lost_at(entry.position)
    return cut is not None and cut.start <= (read.position or START)


def went_back(record: Record, before: Operation, read: Operation) -> str:
    return (
        f"epoch {(before.position or START).epoch} was shown at {record.time(before.returned_us)}, "
        f"and at {record.time(read.returned_us)} {read.position} again"
    )


def kept(record: Record, entry: Entry, read: Operation) -> str:
    when = "at the end" if read.kind == "final" else f"at {record.time(read.returned_us)}"
    said = f"{when}, at {read.position}, it shows {quoted(read.value)} of {read.key}"
    return f"{said}, which is {entry.position}: of an epoch that a reset ended"


def stalled(record: Record, last: Operation) -> str:
    since = next((poll.returned_us for poll in record.polls if poll.position == last.position), None)
    there = "" if since is None else f" since {record.time(since)}"
    followed = (last.position or START).epoch == record.head.epoch
    epochs = "" if followed else f"; it has not followed to epoch {record.head.epoch}"
    return f"at the end it is at {last.position}{there}, and the log at {record.head}{epochs}"


def quoted(found: str | None) -> str:
    if found is None:
        return "no value"
    return json.dumps(found[:_VALUE_MAX], ensure_ascii=False) + ("…" if len(found) > _VALUE_MAX else "")
