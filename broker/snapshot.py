"""A snapshot: the primary's whole store at one position, read without stopping writers."""

from typing import NamedTuple

from broker.entry import Record
from broker.errors import LogRefused, PositionLost
from broker.log import ReplicationLog
from broker.position import Position

_CHUNK = 1000  # records or entries in one answer
_ATTEMPTS = 10


class Snapshot(NamedTuple):
    """A store's content; ``write_id`` and ``at_us`` belong to the change at ``position``."""

    position: Position
    write_id: str
    at_us: int
    records: list[Record]


def take(log: ReplicationLog) -> Snapshot:
    """Read a consistent snapshot: scan while writes continue, then replay the writes made meanwhile.

    A scanned record is at most as new as the head read after the scan, and every change since the head read before it
    is in the log; replaying these changes brings every key to the later head. Starts over if an epoch started or the
    log was trimmed in between; raises ``LogRefused`` after ten attempts.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _attempt(log)
        except PositionLost:
            continue
    raise LogRefused(f"no consistent snapshot in {_ATTEMPTS} attempts: the log was trimmed or reset during each")


def _attempt(log: ReplicationLog) -> Snapshot:
    reached = log.head().position
    found: dict[str, Record] = {}
    cursor = None
    while cursor != 0:
        cursor, records = log.scan(cursor or 0, _CHUNK)
        found.update((record.key, record) for record in records)
    after = log.head()
    if after.position.epoch != reached.epoch:
        raise PositionLost("an epoch started during the scan")
    while reached < after.position:
        entries = log.history.between(reached._replace(version=reached.version + 1), after.position, _CHUNK)
        if not entries:
            raise PositionLost("the log was trimmed during the scan")
        for entry in entries:
            if entry.op == "set":
                found[entry.key] = Record(entry.key, entry.value, entry.position.version, entry.write_id, entry.at_us)
            else:
                found.pop(entry.key, None)
        reached = entries[-1].position
    return Snapshot(after.position, after.write_id, after.at_us, list(found.values()))
