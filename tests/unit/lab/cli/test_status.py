"""``lab status``."""

from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from lab import client
from lab.cli import status
from lab.client import NodeUnreachable
from lab.local.state import LabState, NodeState


def test_hanging_nodes_are_queried_concurrently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Barrier(23)

    def hang(*_: Any, **__: Any) -> Any:
        asked.wait(10)
        raise NodeUnreachable("does not answer")

    monkeypatch.setattr(client, "call", hang)
    nodes = [NodeState(f"lab14-replica{n}", "replica", "http://x", 1, 0) for n in range(23)]
    found = status.observe(LabState(1, "", True, "lab14", 8000, "redis://x", nodes), tmp_path)
    assert [node["id"] for node in found["nodes"]] == [node.id for node in nodes]
    assert {node["health"] for node in found["nodes"]} == {"does not answer"}
    assert not asked.broken
