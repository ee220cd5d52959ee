"""Short ways to write to a log, and to show entries of it."""

import uuid
from typing import Any

from broker.entry import Entry
from broker.log import ReplicationLog
from broker.position import Position


def put(log: ReplicationLog, key: str, value: str = "1", write_id: str | None = None) -> Position:
    appended = log.append("set", key, value, write_id or uuid.uuid4().hex)
    assert appended is not None
    return appended.position


def positions(entries: list[Entry]) -> list[str]:
    return [str(entry.position) for entry in entries]


def misstated_lags(client: Any) -> list[str]:
    """Return each group whose ``lag`` is not the number of entries after its last delivered one, at one moment.

    Within an epoch that number is the difference of versions, unless undelivered entries were trimmed.
    """
    pipe = client.pipeline(transaction=True)
    pipe.xinfo_groups("lab14:log")
    pipe.xrange("lab14:log")
    groups, entries = pipe.execute()
    ids = [Position.of_entry(name) for name, _ in entries]
    found = []
    for group in groups:
        delivered = Position.of_entry(group["last-delivered-id"])
        left = [position for position in ids if position > delivered]
        if group["lag"] != len(left):
            found.append(f"{group['name']} at {delivered}: lag {group['lag']}, not {len(left)}")
        elif left and delivered.is_followed_by_all(left) and left[-1].epoch == delivered.epoch:
            assert group["lag"] == left[-1].version - delivered.version
    return found
