"""``lab predict``: curves and figures, and the delay models that it accepts."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.cli import main


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


@pytest.mark.parametrize(
    ("content", "wanted", "said"),
    [
        ("position,delay_ms\n1-1,10\n1-2,30\n\n1-3,20\n", [10, 20, 30], "3 delays, 10 to 30 ms, column 2 (delay_ms)\n"),
        ("\ufeff12.5\n13.5\n14.5\n", [12.5, 13.5, 14.5], "3 delays, 12.5 to 14.5 ms, column 1\n"),
        ("10:00:00;12,5\n10:00:01;13,25\n", [12.5, 13.25], "2 delays, 12.5 to 13.25 ms, column 2\n"),
        ("position,delay_ms\r\n1,5\r\n2,7\r\n", [5, 7], "2 delays, 5 to 7 ms, column 2 (delay_ms)\n"),
        ('at\t"ms"\n0\t"1,5"\n1\t2\n', [1.5, 2], "2 delays, 1.5 to 2 ms, column 2 (ms)\n"),
    ],
)
def test_measured_delays_are_read_in_every_common_format(
    tmp_path: Path, content: str, wanted: list[float], said: str
) -> None:
    path = tmp_path / "delays.csv"
    path.write_bytes(content.encode())
    done = CliRunner().invoke(main, ["predict", "replicas", "--replica", str(path), "--json"])
    assert json.loads(done.stdout)["replicas"][0]["model"] == {"kind": "trace", "delays_ms": wanted}
    assert done.stderr == f"{path}: {said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("12,5\n13,25\n14,75\n", "line 1: '12,5' could be one or two numbers"),
        ("12.5ms\n13\n14\n", "line 1: '12.5ms' is not a number"),
        ("ms\n1\nnan\n2\n", "line 3: 'nan' is not a number"),
        ("ms\n", "the file contains no delays"),
        ("", "the file contains no delays"),
        ("1\n\xff\n2\n", "line 2: not UTF-8"),
        ("1\n" * 2_100_000, "more than the allowed 4,194,304 bytes"),
    ],
    ids=range(7),
)
def test_an_invalid_file_of_delays_is_rejected_with_the_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "delays.csv"
    path.write_bytes(content.encode("latin-1"))
    done = CliRunner().invoke(main, ["predict", "replicas", "--replica", str(path)])
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize("model", ["x", "-1", "NaN", "true", "[" * 50_000, '{"kind": "zipf"}', "none.csv"])
def test_an_invalid_model_is_rejected_with_a_message(model: str) -> None:
    done = CliRunner().invoke(main, ["predict", "replicas", f"--replica={model}"])
    assert done.exit_code == 2
    assert "neither milliseconds, nor a delay model, nor a .csv file" in done.output


def test_a_quorum_larger_than_the_number_of_replicas_is_rejected() -> None:
    ways = [part for way in ("write", "ack", "read", "answer") for part in (f"--{way}", "10")]
    done = CliRunner().invoke(main, ["predict", "quorum", "-r", "4", *ways])
    assert (done.exit_code, "between 1 and N = 3" in done.output) == (1, True)


def test_the_commands_in_the_document_on_staleness_run() -> None:
    document = (Path(__file__).parents[4] / "docs/staleness.md").read_text(encoding="utf-8")
    commands = re.findall(r"^lab (predict .*)$", document, re.MULTILINE)
    assert len(commands) == 4
    stale = [run(*shlex.split(command), "--json") for command in commands]
    # "most reads are stale for far longer in log order than in order of arrival"
    arrival, log = ([share > 0.5 for share in found["stale"]] for found in stale[1:3])
    assert sum(log) > sum(arrival)
