"""Short ways to write to a log, and to show entries of it."""

import uuid

from broker.entry import Entry
from broker.log import ReplicationLog
from broker.position import Position


def put(log: ReplicationLog, key: str, value: str = "1", write_id: str | None = None) -> Position:
    appended = log.append("set", key, value, write_id or uuid.uuid4().hex)
    assert appended is not None
    return appended.position


def positions(entries: list[Entry]) -> list[str]:
    return [str(entry.position) for entry in entries]
