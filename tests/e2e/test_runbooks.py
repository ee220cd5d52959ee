"""Run the project's runbook block by block, and the demo runbook if LAB_DEMO_RUNBOOK names it."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, compose
from tests.e2e.promises import PROMISES
from tests.support import runbook

# On a busy machine a block takes too long to show its effect.
pytestmark = pytest.mark.alone
RUNBOOKS = [ROOT / "RUNBOOK.md", *map(Path, filter(None, [os.environ.get("LAB_DEMO_RUNBOOK")]))]


@pytest.fixture
def removed(engine: None) -> Iterator[None]:
    """Remove the stack afterwards, even if a block fails."""
    yield
    compose("down", "-v", "--remove-orphans", check=False)


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.name)
def test_every_block_has_its_expected_result(path: Path, removed: None) -> None:
    document = path.read_text(encoding="utf-8")
    found = runbook.blocks(document)
    assert {block.name for block in found} <= set(PROMISES), "a block has no check in promises.py"
    # The cleanup block runs last, wherever it is in the document.
    ending = [block for block in found if block.name == "cleanup"]
    for block in [block for block in found if block not in ending]:
        PROMISES[block.name](runbook.run(block.script, ROOT))
    for command in runbook.quick_reference(document):
        assert runbook.run(command, ROOT).answers, command
    for block in ending:
        PROMISES[block.name](runbook.run(block.script, ROOT))


@pytest.mark.needs("runme")
def test_runme_finds_the_same_blocks() -> None:
    line = ["runme", "ls", "--json", "--filename", "RUNBOOK.md"]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = [block.name for block in runbook.blocks((ROOT / "RUNBOOK.md").read_text(encoding="utf-8"))]
    assert [block["name"] for block in json.loads(found)] == named


def test_every_check_belongs_to_a_block() -> None:
    named = {block.name for block in runbook.blocks((ROOT / "RUNBOOK.md").read_text(encoding="utf-8"))}
    assert set(PROMISES) == named
