"""The command line: help that helps, and what needs no running lab."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lab.cli import main


def commands(group: click.Group, *names: str) -> list[list[str]]:
    found = [list(names)]
    for name, command in group.commands.items():
        found += commands(command, *names, name) if isinstance(command, click.Group) else [[*names, name]]
    return found


@pytest.mark.parametrize("command", commands(main), ids=" ".join)
def test_help_says_what_it_does_with_an_example(command: list[str]) -> None:
    shown = CliRunner().invoke(main, [*command, "--help"])
    assert shown.exit_code == 0
    assert "\\b" not in shown.output
    assert "Options:" in shown.output
    example = f"lab {' '.join(command)}".strip()
    assert command in ([], ["predict"], ["experiment"], ["fault"]) or f"Example: {example}" in shown.output


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return json.loads(done.output) if "--json" in arguments else done.output


def test_predict_replicas_prints_the_curve() -> None:
    models = ("--replica", "500", "--replica", '{"kind": "exponential", "mean_ms": 800}')
    found = run("predict", "replicas", *models, "--order", "arrival", "--points", "5", "--json")
    assert len(found["t_ms"]) == len(found["stale"]) == 5
    assert (found["stale"][0], found["converged"][0]) == (1, 0)
    assert found["stale"] == sorted(found["stale"], reverse=True)
    shown = run("predict", "replicas", *models)
    assert "P(converged)" in shown
    assert "consistency window: p50" in shown


def test_predict_quorum_prints_figures() -> None:
    ways = [part for way in ("write", "ack", "read", "answer") for part in (f"--{way}", "10")]
    found = run("predict", "quorum", *ways, "--trials", "1000", "--json")
    assert found["write_latency_ms"]["p50"] == 20
    assert found["consistent_at_once"] == 1
    assert "N=3 R=1 W=1" in run("predict", "quorum", *ways, "--trials", "1000")


def test_measured_delays_are_read_from_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "delays.csv"
    path.write_text("position,delay_ms\n1-1,10\n1-2,30\n\n1-3,20\n")
    found = run("predict", "replicas", "--replica", str(path), "--json")
    assert found["replicas"][0]["model"] == {"kind": "trace", "delays_ms": [10, 20, 30]}


@pytest.mark.parametrize("model", ["x", "-1", '{"kind": "zipf"}', "none.csv"])
def test_what_is_no_model_is_refused_with_a_sentence(model: str) -> None:
    done = CliRunner().invoke(main, ["predict", "replicas", f"--replica={model}"])
    assert done.exit_code == 2
    assert "neither milliseconds, nor a delay model, nor a .csv file" in done.output


def test_a_quorum_larger_than_the_replicas_is_refused() -> None:
    ways = [part for way in ("write", "ack", "read", "answer") for part in (f"--{way}", "10")]
    done = CliRunner().invoke(main, ["predict", "quorum", "-r", "4", *ways])
    assert (done.exit_code, "between 1 and N = 3" in done.output) == (1, True)


def test_the_commands_in_the_document_on_staleness_run() -> None:
    document = (Path(__file__).parents[3] / "docs/staleness.md").read_text(encoding="utf-8")
    commands = re.findall(r"^lab (predict .*)$", document, re.MULTILINE)
    assert len(commands) == 4
    stale = [run(*shlex.split(command), "--json") for command in commands]
    # "most reads are stale for far longer in log order than in order of arrival"
    arrival, log = ([share > 0.5 for share in found["stale"]] for found in stale[1:3])
    assert sum(log) > sum(arrival)
