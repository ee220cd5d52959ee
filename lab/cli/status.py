"""``lab status``: the running processes, their health, and their lag."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from broker.address import without_password
from lab import client
from lab.cli.options import data_dir_option, json_option
from lab.errors import LabError
from lab.local import files, log_status, state
from lab.local.log_status import OK
from lab.local.state import LabState, NodeState
from lab.terminal import console, print_json, table

_DEGRADED = 3
_THREADS = 32  # more than the nodes of a lab, so that several hanging nodes cost only one timeout


@click.command()
@data_dir_option
@json_option()
def status(data_dir: Path, *, as_json: bool) -> None:
    """Show the health, position and lag of every node.

    Exit status 0 if all is well, 3 if something is degraded, 1 if no lab runs.

    \b
    Example: lab status --json | jq '.nodes[] | {id, behind}'
    """
    found = observe(state.require(data_dir), data_dir)
    if as_json:
        print_json(found)
    else:
        out = console()
        out.print(picture(found))
        if not found["ready"]:
            out.print("The lab is starting.")
        if found["trouble"] is not None:
            out.print(f"Trouble: {found['trouble']}.", style="red", markup=False)
    sys.exit(0 if found["healthy"] else _DEGRADED)


def observe(running: LabState, data_dir: Path) -> dict[str, Any]:
    """Every process with its health and position. ``trouble``: a problem outside the nodes."""
    master = log_status.master(running.redis_url)
    with ThreadPoolExecutor(_THREADS) as threads:
        looks = threads.map(lambda node: _look(node, running, master), running.nodes)
        nodes = [{**asdict(node), **look} for node, look in zip(running.nodes, looks, strict=True)]
    head = next((node.get("version") for node in nodes if node["role"] == "primary"), None)
    for node in nodes:
        version = node.pop("version", None)
        node["behind"] = None if version is None or head is None else max(0, head - version)
    trouble = files.shortage(data_dir)
    return {
        "healthy": running.ready and trouble is None and all(node["health"] == OK for node in nodes),
        "trouble": trouble,
        **{k: v for k, v in asdict(running).items() if k != "nodes"},
        "redis_url": without_password(running.redis_url),
        "log_master": log_status.name_of(master, running),
        "nodes": nodes,
    }


def picture(found: dict[str, Any]) -> Table:
    right = {"pid", "restarts", "behind"}
    shown = table("node", "role", "url", "pid", "restarts", "position", "behind", "health", right=right)
    for node in found["nodes"]:
        health = f"[green]{OK}[/]" if node["health"] == OK else f"[red]{escape(node['health'])}[/]"
        role = f"log {node['log_role']}" if node.get("log_role") in {"master", "replica"} else node["role"]
        cells = (node["id"], role, node["url"], node["pid"], node["restarts"], node["position"], node["behind"])
        shown.add_row(*("" if cell is None else str(cell) for cell in cells), health)
    return shown


def _look(node: NodeState, running: LabState, master: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"health": OK, "position": None}
    if node.role in {"log", "sentinel"}:
        return found | log_status.look(node, running, master)
    try:
        code, health = client.call("GET", f"{node.url}/health", timeout_seconds=3.0)
        if code != 200:
            wrong = (f"{name}: {check}" for name, check in health.get("checks", {}).items() if check != OK)
            found["health"] = "; ".join(wrong)
        if node.role in {"primary", "replica"}:
            version = client.get(f"{node.url}/version", timeout_seconds=3.0)
            found |= {"position": version["position"], "version": version["version"]}
    except LabError:
        found["health"] = "does not answer"
    return found
