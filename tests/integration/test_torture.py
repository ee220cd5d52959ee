"""``lab torture`` on temporary labs: clean without a bug, and not clean with one."""

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from lab.cli import main


def torture(*arguments: str) -> tuple[int, dict[str, Any]]:
    line = [sys.executable, "-m", "lab", "torture", "--json", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.needs("minutes")
def test_under_faults_nothing_is_lost_doubled_reordered_early_regressed_or_diverged() -> None:
    status, found = torture("--seed", "6", "--seconds", "14")
    print(found["acts"], found["operations"], [(one["guarantee"], one["tested"]) for one in found["verdicts"]])
    assert (status, found["clean"], found["broken_promises"]) == (0, True, {}), found
    assert {one["guarantee"]: one["verdict"] for one in found["verdicts"]} == dict.fromkeys(
        ["lost", "doubled", "reordered", "early", "regressed", "stalled", "diverged"], "held"
    )
    assert sum(count for kind, count in found["acts"].items() if kind != "delay") >= 4
    assert all(one["tested"] >= 2 for one in found["verdicts"]), "enough was done to have tested each guarantee"


@pytest.mark.needs("minutes")
def test_a_log_that_is_failed_over_and_isolated_names_what_it_loses() -> None:
    faults = "failover,failback,isolate-master,kill"
    status, found = torture("--ha", "--seed", "5", "--seconds", "10", "--faults", faults)
    print(found["acts"], found["operations"], found["lost"])
    assert (status, found["clean"], found["broken_promises"]) == (0, True, {}), found
    assert found["acts"]["isolate-master"] >= 1
    assert found["epochs"] >= 1, "another server took over"


@pytest.mark.needs("minutes")
def test_a_corrupted_value_fails_the_verdict() -> None:
    # Most corrupted values are written again before a session reads them: this seed corrupts 13.
    status, found = torture("--seed", "28", "--seconds", "15", "--faults", "corrupt")
    assert (status, found["clean"]) == (1, False)
    assert {one["guarantee"]: one["verdict"] for one in found["verdicts"]}["reordered"] == "violated"
    assert found["acts"]["corrupt"] == 13


def test_the_schedule_can_be_printed_without_a_run() -> None:
    line = ["torture", "--seed", "14", "--seconds", "60", "--schedule"]
    shown = [CliRunner().invoke(main, line).output for _ in range(2)]
    assert shown[0] == shown[1]
    assert len(shown[0].splitlines()) > 30


def test_an_unknown_fault_is_refused() -> None:
    done = CliRunner().invoke(main, ["torture", "--faults", "pause,nothing"])
    assert done.exit_code == 2
    assert "unknown fault 'nothing'; choose from kill, hang, pause" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--faults", "kill,failover"], "failover needs --ha"),
        (["--ha", "--compose"], "--ha and --compose exclude each other"),
    ],
)
def test_faults_of_the_log_need_a_lab_that_it_starts_with_sentinels(options: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["torture", *options])
    assert done.exit_code == 2
    assert said in done.stderr
