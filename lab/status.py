"""``lab status``: what runs, how it is, and how far behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from broker.connection import connect
from broker.errors import LogError
from broker.history import History
from lab import client
from lab.client import NodeUnreachable
from lab.local import disk
from lab.local.layout import without_password
from lab.local.state import LabState, NodeState

OK = "ok"
_AT_ONCE = 32  # more than a lab has nodes, so that those that hang cost their time once


def observe(state: LabState, data_dir: Path) -> dict[str, Any]:
    """Every process with its health, and for primary and replicas their position and how many versions they lack.

    ``trouble``: what is wrong with the lab beside its nodes, as a sentence.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        looks = threads.map(lambda node: _look(node, state), state.nodes)
        nodes = [{**asdict(node), **look} for node, look in zip(state.nodes, looks, strict=True)]
    head = next((node.get("version") for node in nodes if node["role"] == "primary"), None)
    for node in nodes:
        version = node.pop("version", None)
        node["behind"] = None if version is None or head is None else max(0, head - version)
    trouble = disk.shortage(data_dir)
    healthy = state.ready and trouble is None and all(node["health"] == OK for node in nodes)
    return {
        "healthy": healthy,
        "trouble": trouble,
        **{k: v for k, v in asdict(state).items() if k != "nodes"},
        "redis_url": without_password(state.redis_url),
        "nodes": nodes,
    }


def table(found: dict[str, Any]) -> Table:
    """The same for people."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("node", "url", "pid", "restarts", "position", "behind", "health"):
        shown.add_column(name, justify="right" if name in {"pid", "restarts", "behind"} else "left")
    for node in found["nodes"]:
        health = f"[green]{OK}[/]" if node["health"] == OK else f"[red]{escape(node['health'])}[/]"
        cells = (node["id"], node["url"], node["pid"], node["restarts"], node["position"], node["behind"])
        shown.add_row(*("" if cell is None else str(cell) for cell in cells), health)
    return shown


def _look(node: NodeState, state: LabState) -> dict[str, Any]:
    if node.role == "log":
        return {"health": _log_health(state), "position": None}
    try:
        status, health = client.call("GET", f"{node.url}/health", timeout_seconds=3.0)
        wrong = [f"{name}: {check}" for name, check in health.get("checks", {}).items() if check != OK]
        found: dict[str, Any] = {"health": OK if status == 200 else "; ".join(wrong), "position": None}
        if node.role in {"primary", "replica"}:
            version = client.get(f"{node.url}/version", timeout_seconds=3.0)
            found |= {"position": version["position"], "version": version["version"]}
    except NodeUnreachable:
        return {"health": "does not answer", "position": None}
    return found


def _log_health(state: LabState) -> str:
    try:
        History(connect(state.redis_url, answer_timeout_seconds=2.0), state.namespace).now_us()
    except LogError as error:
        return str(error)
    return OK
