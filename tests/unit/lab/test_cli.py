"""The command line: help that helps, and what needs no running lab."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lab import faults, terminal
from lab.checking import command as checking
from lab.cli import main
from lab.errors import LabError


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
    return json.loads(done.stdout) if "--json" in arguments else done.output


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


@pytest.mark.parametrize(
    ("content", "wanted", "said"),
    [
        ("\ufeff12.5\n13.5\n14.5\n", [12.5, 13.5, 14.5], "3 delays, 12.5 to 14.5 ms, column 1\n"),
        ("10:00:00;12,5\n10:00:01;13,25\n", [12.5, 13.25], "2 delays, 12.5 to 13.25 ms, column 2\n"),
        ("position,delay_ms\r\n1,5\r\n2,7\r\n", [5, 7], "2 delays, 5 to 7 ms, column 2 (delay_ms)\n"),
        ('at\t"ms"\n0\t"1,5"\n1\t2\n', [1.5, 2], "2 delays, 1.5 to 2 ms, column 2 (ms)\n"),
    ],
)
def test_measured_delays_are_read_as_they_were_meant(
    tmp_path: Path, content: str, wanted: list[float], said: str
) -> None:
    path = tmp_path / "delays.csv"
    path.write_bytes(content.encode())
    done = CliRunner().invoke(main, ["predict", "replicas", "--replica", str(path), "--json"])
    assert json.loads(done.stdout)["replicas"][0]["model"]["delays_ms"] == wanted
    assert done.stderr == f"{path}: {said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("12,5\n13,25\n14,75\n", "line 1: '12,5' is one number or two"),
        ("12.5ms\n13\n14\n", "line 1: '12.5ms' is not a number"),
        ("ms\n1\nnan\n2\n", "line 3: 'nan' is not a number"),
        ("ms\n", "there are no delays in it"),
        ("", "there are no delays in it"),
        ("1\n\xff\n2\n", "line 2: not UTF-8"),
        ("1\n" * 2_100_000, "more than 4,194,304 bytes"),
    ],
    ids=range(7),
)
def test_what_is_no_file_of_delays_is_refused_with_the_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "delays.csv"
    path.write_bytes(content.encode("latin-1"))
    done = CliRunner().invoke(main, ["predict", "replicas", "--replica", str(path)])
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize("model", ["x", "-1", "NaN", "true", "[" * 50_000, '{"kind": "zipf"}', "none.csv"])
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


@pytest.mark.parametrize(
    "command",
    [
        ["load", "--primary-url", "http://127.0.0.1:9"],
        ["check", "--history"],
        ["experiment", "run", "--client-url", "http://127.0.0.1:9"],
        ["predict", "replicas", "--replica"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["directory", "device", "nothing"])
def test_what_is_not_a_file_is_refused_with_a_sentence(tmp_path: Path, command: list[str], kind: str) -> None:
    path = tmp_path / "\x1b[31mx.csv"
    if kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    done = CliRunner().invoke(main, [*command, str(path)])
    assert done.exit_code in {1, 2}
    assert isinstance(done.exception, SystemExit)
    assert {"directory": "it is a directory", "device": "it is a device", "nothing": "No such file"}[
        kind
    ] in done.output
    assert done.output.count("\n") <= 4
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    "command",
    [
        ["check", "--seconds", "nan"],
        ["check", "--max-lag-ms", "NaN"],
        ["torture", "--schedule", "--seconds", "nan"],
        ["predict", "replicas", "--replica", "5", "--rate", "nan"],
    ],
    ids=" ".join,
)
def test_what_is_not_a_number_is_in_no_range(command: list[str]) -> None:
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, "is not a number" in done.output) == (2, True)


@pytest.mark.parametrize("command", [["check", "--save"], ["check", "--export"], ["torture", "--save"]], ids=" ".join)
def test_a_file_that_cannot_be_written_is_refused_before_any_work(command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "/none/of/these"])
    assert (done.exit_code, "is no directory to write to" in done.output) == (2, True)


def test_a_check_that_tests_nothing_is_not_a_success(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    failed = {"index": 0, "session": 0, "kind": "write", "outcome": "fail", "invoked_us": 1, "returned_us": 2}
    (tmp_path / "failed").write_text(json.dumps(failed))
    for name in ("empty", "failed"):
        done = CliRunner().invoke(main, ["check", "--history", str(tmp_path / name)])
        assert (done.exit_code, done.stderr[:6]) == (2, "Error:")


def test_a_name_does_not_steer_the_terminal() -> None:
    out = io.StringIO()
    console = terminal.console()
    console.file = out
    console.print("a\x1b]0;title\x07b\x9bc", markup=False)
    console.print(faults.table({"r[/x]": {"error": "\x1b[2J"}}))
    assert out.getvalue().isascii() is False
    assert not set(out.getvalue()) & {"\x1b", "\x07", "\x9b"}
    assert "r[/x]" in out.getvalue()


@pytest.mark.parametrize(
    ("fault", "given", "wanted"),
    [
        ("corrupt", ("key=123",), {"key": "123"}),
        ("corrupt", ("key=no",), {"key": "no"}),
        ("corrupt", ("key=2026-01-01",), {"key": "2026-01-01"}),
        ("corrupt", ("key=a=b",), {"key": "a=b"}),
        ("pause", ("duration_ms=5000",), {"duration_ms": 5000}),
        ("skew", ("skew_ms=-1.5",), {"skew_ms": -1.5}),
        ("drop_ack", (), {}),
    ],
)
def test_a_parameter_of_a_fault_is_what_the_fault_takes(fault: str, given: tuple[str, ...], wanted: Any) -> None:
    assert faults.parameters(fault, given) == wanted


@pytest.mark.parametrize(
    ("fault", "given", "said"),
    [
        ("pausse", (), "unknown fault 'pausse'; choose from corrupt, crash"),
        ("pause", ("duration_ms",), "looks like duration_ms=5000"),
        ("pause", ("duration_ms=1", "duration_ms=2"), "each name once"),
        ("pause", ("duration_ms=yes",), "duration_ms: .*integer"),
        ("pause", ("duration_ms=" + "9" * 5000,), "duration_ms: "),
        ("pause", ("replica=x",), "replica: "),
        ("pause", ("fault=crash",), "fault: "),
        ("skew", (), "skew_ms: "),
        ("skew", ("skew_ms=nan",), "skew_ms: "),
        ("crash", ("duration_ms=5",), "over at once"),
        ("corrupt", ("key=",), "key: a key has 1 to 512 bytes"),
    ],
)
def test_what_is_no_parameter_is_refused_with_a_sentence(fault: str, given: tuple[str, ...], said: str) -> None:
    with pytest.raises(LabError, match=said):
        faults.parameters(fault, given)


def test_a_replica_whose_faults_could_not_be_ended_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"r1": {"ended": ["pause"]}, "r2": {"ended": []}, "r3": {"error": "http://r3 cannot be reached"}}
    monkeypatch.setattr(faults, "call", lambda *_: (200, {"replicas": answers}))
    done = CliRunner().invoke(main, ["fault", "end", "--client-url", "http://127.0.0.1:9"])
    assert (done.exit_code, done.stdout) == (1, "r1: pause\nr2: nothing was in force\n")
    assert done.stderr == "r3: http://r3 cannot be reached\n"


def test_a_check_of_another_service_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "call", lambda *_: (200, {"role": "primary"}))
    done = CliRunner().invoke(main, ["check", "--client-url", "http://127.0.0.1:9"])
    assert (done.exit_code, "is not the client service, but 'primary'" in done.stderr) == (2, True)
