"""Branches that recover from something: found in the source, counted while a lab is simulated, and shown."""

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

import nodes
from lab.simulation import branches, report
from lab.simulation.branches import BRANCHES, Branch
from lab.simulation.run import SHORT, simulate
from lab.simulation.schedule import Fault

_KILLED = Fault(0, 8.0, "log_restart", 0, 0.5, 0.0)


def test_the_text_of_each_branch_is_one_line_of_its_file() -> None:
    root = Path(nodes.__file__).parents[1]
    for branch in BRANCHES:
        lines = (root / branch.file).read_text(encoding="utf-8").splitlines()
        assert [line.split("  #")[0].strip() for line in lines].count(branch.text) == 1, branch


def test_recording_counts_the_branches_that_a_fault_needs_and_does_not_change_the_run() -> None:
    without = simulate(1, SHORT.round_seconds, [_KILLED], SHORT)
    with branches.recording() as taken:
        recorded = simulate(1, SHORT.round_seconds, [_KILLED], SHORT)

    assert recorded.faults == [_KILLED]
    assert (recorded.steps, recorded.counts, recorded.failure) == (without.steps, without.counts, without.failure)
    meanings = {branch.meaning: count for branch, count in taken.items()}
    assert meanings["a command to the log failed, or its reply was lost"] >= 1
    assert meanings["the log server was restarted or replaced"] >= 1
    assert "a damaged file is quarantined" not in meanings


def test_the_table_ends_with_the_branches_that_were_never_taken() -> None:
    last = BRANCHES[-1]
    console = Console(width=200, file=io.StringIO(), record=True)

    console.print(report.branches(Counter({last: 7})))
    _, first, *others = console.export_text().splitlines()

    assert first.split()[0] == "nodes.primary.upkeep:Retention.bound_bytes"
    assert first.split()[-1] == "7"
    assert len(others) == len(BRANCHES) - 1
    assert all(line.split()[-1] == "never" for line in others)


def test_a_text_that_occurs_twice_is_reported() -> None:
    with pytest.raises(AssertionError, match="has 2 lines"):
        branches._find(Branch("some.py", "return", ""), "def one():\n    return\ndef other():\n    return\n")
