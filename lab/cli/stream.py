"""``lab stream``: the log, its groups, and pending entries."""

import json
import shutil
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from broker import address
from broker.connection import connect
from broker.errors import LogError
from broker.log import ReplicationLog
from lab.cli.options import data_dir_option, json_option
from lab.errors import LabError
from lab.local import log_status, state
from lab.local.state import LabState
from lab.terminal import console, plain, print_json, table

_SHOWN_CHARACTERS = 60


@click.command()
@data_dir_option
@click.option("--count", type=click.IntRange(1, 10_000), default=20, help="Number of entries.")
@json_option()
def stream(data_dir: Path, count: int, *, as_json: bool) -> None:
    """Show the log: newest entries, groups, and pending entries.

    \b
    Example: lab stream --count 5
    """
    running = state.require(data_dir)
    try:
        found = observe(running.redis_url, running.namespace, count)
        found["server"] = log_status.name_of(found["server"], running)
    except LogError as error:
        raise LabError(f"{error}; `lab status` shows what is wrong") from None
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(picture(found))
    out.print("\n" + ("With redis-cli:" if shutil.which("redis-cli") else "With a redis-cli (not on the PATH):"))
    for line in redis_cli_lines(running, found["stream"]):
        out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def observe(redis_url: str, namespace: str, count: int) -> dict[str, Any]:
    """Head, newest entries (oldest first) and groups, as JSON. Raises ``broker.errors.LogError``."""
    namespace = address.parse(redis_url).namespace(namespace)
    log = ReplicationLog(connect(redis_url), namespace)
    head, now_us = log.head(), log.history.now_us()
    return {
        "stream": f"{namespace}:log",
        "server": log_status.master(redis_url),
        "length": log.history.length(),
        "head": {"position": str(head.position), "keys": head.keys, "digest": head.digest},
        "entries": [
            {
                "position": str(entry.position),
                "op": entry.op,
                "key": entry.key,
                "value": json.loads(entry.value) if entry.value else None,
                "write_id": entry.write_id,
                "at_us": entry.at_us,
                "age_ms": max(0, now_us - entry.at_us) / 1000,
            }
            for entry in log.history.newest(count)
        ],
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


def picture(found: dict[str, Any]) -> Group:
    """Show the same as tables. Keys and values are data: shown literally, and shortened."""
    title = f"{found['stream']} on {found['server'] or 'an unknown server'}, {found['length']} entries"
    entries = table("position", "op", "key", "value", "age", right={"age"}, title=title, no_wrap=True)
    for entry in found["entries"]:
        value = "" if entry["op"] != "set" else json.dumps(entry["value"], ensure_ascii=False)
        cells = (entry["position"], entry["op"], entry["key"], value, f"{entry['age_ms'] / 1000:.1f} s")
        entries.add_row(*(_shortened(cell) for cell in cells))
    groups = table("replica", "last delivered", "pending", "oldest pending", right={"pending"}, title="groups")
    for group in found["groups"]:
        oldest = group["oldest_pending"] or "none"
        groups.add_row(group["replica"], group["last_delivered"], str(group["pending"]), oldest)
    return Group(entries, Text(""), groups)


def redis_cli_lines(running: LabState, name: str) -> list[str]:
    """Equivalent redis-cli commands. They contain the password only if it is that of the lab's own servers."""
    via = log_status.redis_cli(running.redis_url, with_password=running.node_or_none("log") is not None)
    return [
        f"{via} XRANGE {name} - + COUNT 20",
        f"{via} XINFO GROUPS {name}",
        f"{via} XPENDING {name} {running.namespace}-replica2",
    ]


def _shortened(text: str) -> Text:
    shown = plain(text, keep="")
    return Text(shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…")
