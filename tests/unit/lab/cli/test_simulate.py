"""``lab simulate``: its options, its output, and its exit status."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.delay.line import DelayLine
from lab.cli import main, simulate
from lab.simulation.report import STATES
from lab.simulation.schedule import KINDS


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *options])


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab that applies entries when they arrive."""
    monkeypatch.setattr(DelayLine, "due_us", lambda _, entry: entry.at_us)


def test_a_clean_run_prints_what_happened_and_what_met_what() -> None:
    shown = run("--seed", "14", "--minutes", "1")
    assert shown.exit_code == 0, shown.output
    assert "1 run of 0:01:00 in all" in shown.output
    assert "Nothing was violated with seed 14." in shown.output
    assert all(kind.replace("_", " ") in shown.output for kind in KINDS)


def test_json_has_the_counts_of_all_runs() -> None:
    found = json.loads(run("--seeds", "1-2", "--minutes", "1", "--json").output)
    assert (found["runs"], found["seconds"], found["failures"], found["shortened"]) == (2, 120.0, [], None)
    assert found["counts"]["acknowledged"] > 1000
    assert set(found["met"]) == set(KINDS)
    assert all(set(of_kind) == set(STATES) for of_kind in found["met"].values())
    assert found["branches"] is None, "they were not counted"


def test_branches_are_counted_on_request() -> None:
    found = json.loads(run("--seed", "1", "--minutes", "1", "--branches", "--json").output)
    assert 0 in found["branches"].values()
    assert sum(found["branches"].values()) > 0


@pytest.mark.usefixtures("broken")
def test_a_failure_is_shown_in_its_shortest_form_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "failure.svg"
    shown = run("--seeds", "1-2", "--minutes", "1", "--svg", str(picture))
    assert shown.exit_code == 1
    assert "Failed: 1, 2" in shown.output
    assert "Seed 1 violates: nothing is applied before it is due" in shown.output
    assert "0 faults:" in shown.output
    drawn = shown.output.partition("What happened last:")[2]
    assert "lab14-replica1" in drawn
    assert "nothing is applied before it is due" in drawn
    assert picture.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.usefixtures("broken")
def test_the_first_failure_can_end_the_runs() -> None:
    found = json.loads(run("--seeds", "1-1000", "--minutes", "1", "--first", "--no-shorten", "--json").output)
    assert found["runs"] == 1
    assert found["failures"][0]["seed"] == found["shortened"]["seed"] == 1
    assert found["failures"][0]["events"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seeds", "many"], "'many' is neither a seed nor a range"),
        (["--seeds", "9-3"], "'9-3' is neither a seed nor a range"),
        (["--seeds", "1-900000"], "at most 100,000"),
        (["--hours", "1", "--minutes", "5"], "--hours and --minutes exclude each other"),
        (["--minutes", "0.5"], "0.5 is not in the range"),
        (["--jobs", "0"], "0 is not in the range"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_runs(options: list[str], words: str) -> None:
    shown = run(*options)
    assert shown.exit_code == 2
    assert words in shown.output


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name in {"greenlet", "lupa"} else name

    monkeypatch.setattr(simulate, "find_spec", find)
    shown = run("--seed", "14")
    assert shown.exit_code == 1
    assert "the simulation needs fakeredis[lua] and greenlet." in shown.output
    assert "pip install" in shown.output
