"""Both runbooks, block by block: ours, and the one that the lab was asked for where it is at hand."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, compose
from tests.e2e.promises import PROMISES
from tests.support import runbook

RUNBOOKS = [ROOT / "RUNBOOK.md", *map(Path, filter(None, [os.environ.get("LAB_DEMO_RUNBOOK")]))]


@pytest.fixture
def removed(engine: None) -> Iterator[None]:
    """Whatever happens to the blocks, nothing of the stack stays."""
    yield
    compose("down", "-v", "--remove-orphans", check=False)


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.name)
def test_every_block_keeps_its_promise(path: Path, removed: None) -> None:
    document = path.read_text(encoding="utf-8")
    found = runbook.blocks(document)
    assert {block.name for block in found} <= set(PROMISES), "every block promises something"
    # What ends the lab comes last, wherever in the document it stands.
    ending = [block for block in found if block.name == "cleanup"]
    for block in [block for block in found if block not in ending]:
        PROMISES[block.name](runbook.run(block.script, ROOT))
    for command in runbook.quick_reference(document):
        assert runbook.run(command, ROOT).answers, command
    for block in ending:
        PROMISES[block.name](runbook.run(block.script, ROOT))


@pytest.mark.needs("runme")
def test_runme_reads_the_same_blocks() -> None:
    line = ["runme", "ls", "--json", "--filename", "RUNBOOK.md"]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = [block.name for block in runbook.blocks((ROOT / "RUNBOOK.md").read_text(encoding="utf-8"))]
    assert [block["name"] for block in json.loads(found)] == named


def test_every_promise_is_some_blocks() -> None:
    named = {block.name for block in runbook.blocks((ROOT / "RUNBOOK.md").read_text(encoding="utf-8"))}
    assert set(PROMISES) == named
