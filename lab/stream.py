"""``lab stream``: the log as it is, its groups, and what is pending."""

from __future__ import annotations

import json
import shutil
from typing import Any

from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from broker.connection import connect
from broker.entry import Entry
from broker.log import ReplicationLog
from lab.local.layout import without_password
from lab.local.state import LabState
from lab.text import plain

_SHOWN_CHARACTERS = 60


def observe(redis_url: str, namespace: str, count: int) -> dict[str, Any]:
    """Head, newest entries (oldest first) and groups, as JSON. Raises ``broker.errors.LogError``."""
    log = ReplicationLog(connect(redis_url), namespace)
    head, now_us = log.head(), log.history.now_us()
    return {
        "stream": f"{namespace}:log",
        "length": log.history.length(),
        "head": {"position": str(head.position), "keys": head.keys, "digest": head.digest},
        "entries": [_entry(entry, now_us) for entry in log.history.newest(count)],
        "groups": [
            {
                "replica": group.replica,
                "last_delivered": str(group.last_delivered),
                "pending": group.pending,
                "oldest_pending": str(group.oldest_pending) if group.oldest_pending else None,
                "newest_pending": str(group.newest_pending) if group.newest_pending else None,
            }
            for group in log.history.groups()
        ],
    }


def _entry(entry: Entry, now_us: int) -> dict[str, Any]:
    return {
        "position": str(entry.position),
        "op": entry.op,
        "key": entry.key,
        "value": json.loads(entry.value) if entry.value else None,
        "write_id": entry.write_id,
        "at_us": entry.at_us,
        "age_ms": max(0, now_us - entry.at_us) / 1000,
    }


def picture(found: dict[str, Any]) -> Stack:
    """The same for people. Keys and values are data: shown as they are, and shortened."""
    entries = Table(
        title=f"{found['stream']}, {found['length']} entries", title_justify="left", box=None, pad_edge=False
    )
    for name in ("position", "op", "key", "value", "age"):
        entries.add_column(name, justify="right" if name == "age" else "left", no_wrap=True)
    for entry in found["entries"]:
        value = "" if entry["op"] != "set" else json.dumps(entry["value"], ensure_ascii=False)
        cells = (entry["position"], entry["op"], entry["key"], value, f"{entry['age_ms'] / 1000:.1f} s")
        entries.add_row(*(_plain(cell) for cell in cells))
    return Stack(entries, Text(""), groups(found))


def groups(found: dict[str, Any]) -> Table:
    """One row per replica: where its group is, and what it has not acknowledged."""
    shown = Table(title="groups", title_justify="left", box=None, pad_edge=False)
    for name in ("replica", "last delivered", "pending", "oldest pending"):
        shown.add_column(name, justify="right" if name == "pending" else "left")
    for group in found["groups"]:
        oldest = group["oldest_pending"] or "none"
        shown.add_row(group["replica"], group["last_delivered"], str(group["pending"]), oldest)
    return shown


def redis_cli_lines(state: LabState) -> list[str]:
    """How to look by oneself, with any redis-cli. The password is shown if it is the embedded server's."""
    via = f"redis-cli --no-auth-warning -u {state.redis_url}"
    if not state.node_or_none("log"):
        shown = without_password(state.redis_url)
        via = f"{'' if shown == state.redis_url else 'REDISCLI_AUTH=PASSWORD '}redis-cli -u {shown}"
    stream = f"{state.namespace}:log"
    return [
        f"{via} XRANGE {stream} - + COUNT 20",
        f"{via} XINFO GROUPS {stream}",
        f"{via} XPENDING {stream} {state.namespace}-replica2",
    ]


def has_redis_cli() -> bool:
    """Whether there is a redis-cli on the PATH."""
    return shutil.which("redis-cli") is not None


def _plain(text: str) -> Text:
    """Text without control characters and not longer than fits."""
    shown = plain(text, keep="")
    return Text(shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…")
