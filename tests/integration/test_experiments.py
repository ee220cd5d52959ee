"""Experiments on a real lab: measurements agree with predictions, and settings are restored."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.local.supervisor import Lab
from nodes.experiments.spec import ENDED
from tests.integration.conftest import processes, running_lab, set_delays
from tests.support import chromium
from tests.support.http import ask, get
from tests.support.processes import foreground
from tests.support.until import until

REPLICA = "lab14-replica2"
SLOW = {"kind": "windows", "writes": 200, "rate": 10, "settings": {REPLICA: {"delay_ms": 40}}}
QUICK = {"kind": "windows", "writes": 3, "rate": 50}
READS = 2000
QUORUM_READS = 1000
OVERLAPPING_READS = 500


def submit(lab: Lab, spec: dict[str, Any]) -> str:
    status, found = ask("POST", f"{lab.client_url}/experiments", spec)
    assert status == 202, found
    return str(found["id"])


def show(lab: Lab, name: str, query: str = "") -> dict[str, Any]:
    return get(f"{lab.client_url}/experiments/{name}{query}")


def ended(lab: Lab, name: str, timeout_seconds: float = 60.0) -> dict[str, Any]:
    until(lambda: show(lab, name)["state"] in ENDED, timeout_seconds)
    return show(lab, name, "?raw=true")


def finished(lab: Lab, spec: dict[str, Any]) -> dict[str, Any]:
    found = ended(lab, submit(lab, spec))
    assert found["state"] == "finished", found["reason"]
    result: dict[str, Any] = found["result"]
    assert result.get("errors", 0) == 0, result["error"]
    return result


def settings(lab: Lab) -> dict[str, Any]:
    return get(f"{lab.primary_url}/admin/replication-delays")


def running(lab: Lab, spec: dict[str, Any]) -> str:
    """The id of a running experiment, once its settings are active."""
    name = submit(lab, spec)
    until(lambda: settings(lab)["delays"][f"http://{REPLICA}:{lab.replica_urls[REPLICA].rsplit(':', 1)[1]}"] == 40, 20)
    until(lambda: show(lab, name)["state"] == "running", 5)
    return name


def worker_processes(lab: Lab) -> list[int]:
    return [process.pid for process in processes(lab.pids["lab14-worker"])]


@pytest.mark.alone
@pytest.mark.parametrize("order", ["arrival", "log"])
def test_measured_staleness_is_what_the_models_predict(fresh: Lab, order: str) -> None:
    before = settings(fresh)
    means = dict(zip(fresh.replica_urls, (40, 60), strict=True))
    wanted = {
        name: {"model": {"kind": "exponential", "mean_ms": mean}, "order": order, "seed": 3}
        for name, mean in means.items()
    }
    load = {"reads": READS, "reads_per_second": 400, "rate": 60 if order == "arrival" else 15}
    found = finished(fresh, {"kind": "staleness", **load, "seed": 3, "settings": wanted})
    curve = found["stale"]
    assert found["reads"] == len(found["raw"]["t_ms"]) == READS
    assert sum(curve["reads"]) > READS / 2  # the others came after the horizon, on a busy machine
    assert len(curve["t_ms"]) > 20  # of 30 steps; one without a read is left out
    print(f"\n{order}: {found['reads']} reads, RMSE {curve['rmse']:.2%}, late {found['late_ms']['p99']} ms")
    assert curve["rmse"] < 0.12  # few reads on a busy machine; docs/staleness.md has figures for many
    assert max(curve["measured"]) > 0.8
    assert settings(fresh) == before


@pytest.mark.alone
def test_measured_quorums_are_what_the_models_predict(tmp_path: Path) -> None:
    exponential = {
        "model": {"kind": "exponential", "mean_ms": 100},
        "ack_model": {"kind": "exponential", "mean_ms": 50},
    }
    with running_lab(tmp_path, replicas=3) as lab:
        wanted = {name: {**exponential, "order": "arrival", "seed": 3} for name in lab.replica_urls}
        load: dict[str, Any] = {
            "reads": QUORUM_READS,
            "reads_per_second": 200,
            "rate": 40,
            "seed": 3,
            "settings": wanted,
        }
        found = finished(lab, {"kind": "quorum", "n": 3, "r": 1, "w": 1, **load})
        load["reads"] = OVERLAPPING_READS
        overlapping = finished(lab, {"kind": "quorum", "n": 3, "r": 2, "w": 2, **load})
        refused = ended(lab, submit(lab, {"kind": "quorum", "n": 5}))
    curve, newest = found["stale"], found["newest"]
    print(f"\n{found['reads']} reads, RMSE {curve['rmse']:.2%}, newest {newest}, late {found['late_ms']['p99']} ms")
    assert found["reads"] == len(found["raw"]["t_ms"]) == QUORUM_READS
    assert overlapping["reads"] == OVERLAPPING_READS
    assert curve["rmse"] < 0.1  # few reads on a busy machine; docs/staleness.md has figures for many
    assert max(curve["predicted"]) > 0.3
    # Reads between two writes see the same one: the sample is as large as the number of writes while it is taken.
    share, writes = newest["predicted"][0], newest["reads"] / load["reads_per_second"] * load["rate"]
    assert newest["measured"][0] == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / writes))
    predicted_ms = found["write_ms"]["predicted"]["p50"]
    assert predicted_ms - 10 < found["write_ms"]["measured"]["p50"] < predicted_ms + 60
    assert sum(overlapping["raw"]["stale"]) == sum(overlapping["stale"]["predicted"]) == 0
    assert overlapping["newest"]["measured"] == overlapping["newest"]["predicted"] == [1.0] * 5
    assert refused["reason"] == (
        "n=5, but this lab has 3 replicas; start it with `lab up --replicas 5`, or leave n out"
    )


@pytest.mark.needs("chromium")
def test_windows_from_the_command_line_and_their_report_in_a_browser(fresh: Lab, tmp_path: Path) -> None:
    before = settings(fresh)
    description = tmp_path / "windows.yaml"
    description.write_text("kind: windows\nwrites: 20\nrate: 20\n")
    done = lab_cli(fresh, "run", str(description), "--set", f"settings.{REPLICA}.delay_ms=700")
    assert done.returncode == 0, done.stdout + done.stderr
    assert settings(fresh) == before
    name = re.findall(r"^experiment (\w+)$", done.stdout, re.MULTILINE)[0]
    found = show(fresh, name, "?raw=true")
    windows = found["result"]["raw"]["window_ms"]
    assert len(windows) == 20
    assert found["result"]["window_ms"]["p50"] > 650
    assert found["result"]["settings"][REPLICA]["model"] == {"kind": "fixed", "ms": 700}
    assert found["result"]["versions"]["log server"].startswith(("Valkey", "Redis"))
    assert f"{found['result']['window_ms']['p50']:.1f}" in done.stdout
    assert name in lab_cli(fresh, "list").stdout
    assert json.loads(lab_cli(fresh, "show", name, "--json").stdout) == found

    page = tmp_path / "report.html"
    done = lab_cli(fresh, "report", name, "--out", str(page))
    assert done.returncode == 0, done.stderr
    elements, console = chromium.shown(page, tmp_path / "report.png")
    assert console == []
    assert elements.count("<svg") == 2
    assert f"{found['result']['window_ms']['p50']:.1f}" in elements
    assert (tmp_path / "report.png").stat().st_size > 20_000


def lab_cli(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "lab", "experiment", *arguments, "--client-url", lab.client_url]
    return subprocess.run(line, capture_output=True, text=True, timeout=90, check=False)


def test_what_each_level_costs(fresh: Lab) -> None:
    set_delays(fresh, 500, 500)
    levels = finished(fresh, {"kind": "levels", "reads": 20, "rate": 40})["levels"]
    assert {name: found["waited_ms"]["count"] for name, found in levels.items()} == dict.fromkeys(levels, 20)
    assert levels["session"]["own_write"] == levels["strong"]["own_write"] == 1
    assert levels["session"]["waited_ms"]["p50"] > 2 * levels["eventual"]["waited_ms"]["p50"]
    assert levels["eventual"]["stale"] > 0.9


def test_a_sweep_measures_each_value_and_restores_the_settings(fresh: Lab) -> None:
    before = settings(fresh)
    spec = {"kind": "sweep", "parameter": f"settings.{REPLICA}.delay_ms", "values": [300, 500], "experiment": QUICK}
    steps = finished(fresh, spec)["steps"]
    assert [step["value"] for step in steps] == [300, 500]
    for step in steps:
        assert step["value"] - 100 < step["result"]["window_ms"]["p50"]
    assert steps[0]["result"]["window_ms"]["p50"] < steps[1]["result"]["window_ms"]["p50"]
    assert settings(fresh) == before


def test_a_killed_worker_fails_its_experiment_and_the_next_one_runs(fresh: Lab) -> None:
    before = settings(fresh)
    killed, waiting = running(fresh, SLOW), submit(fresh, QUICK)
    for pid in worker_processes(fresh):
        os.kill(pid, signal.SIGKILL)
    found = ended(fresh, killed)
    assert (found["state"], found["reason"]) == ("failed", "its worker died; the settings are restored")
    assert settings(fresh) == before
    assert ended(fresh, waiting)["state"] == "finished"


def test_a_cancelled_experiment_ends_and_the_next_one_runs(fresh: Lab) -> None:
    before = settings(fresh)
    name, waiting = running(fresh, SLOW), submit(fresh, QUICK)
    started = time.monotonic()
    assert ask("DELETE", f"{fresh.client_url}/experiments/{name}")[0] == 200
    found = ended(fresh, name, 10)  # of the 20 s that it would take
    print(f"\ncancelled within {(time.monotonic() - started) * 1000:.0f} ms")
    assert (found["state"], found["reason"]) == ("cancelled", "it was canceled")
    assert settings(fresh) == before
    assert ask("DELETE", f"{fresh.client_url}/experiments/{name}")[0] == 409
    assert ended(fresh, waiting)["state"] == "finished"


def test_ctrl_c_cancels_the_experiment_that_is_watched(fresh: Lab) -> None:
    before = settings(fresh)
    line = [sys.executable, "-m", "lab", "experiment", "run", "windows", "--client-url", fresh.client_url]
    line += ["--set", "writes=200", "--set", f"settings.{REPLICA}.delay_ms=40"]
    with foreground(line) as process:
        until(lambda: settings(fresh) != before, 20)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "cancelled: it was canceled" in output
    assert settings(fresh) == before


def test_a_lab_stopped_during_an_experiment_restarts_with_the_previous_settings(tmp_path: Path) -> None:
    with running_lab(tmp_path) as lab:
        before = settings(lab)
        name = running(lab, SLOW)
    with running_lab(tmp_path, base_port=lab.options.base_port) as lab:
        found = ended(lab, name)
        assert found["state"] == "failed"
        reasons = [
            "its worker died; the settings are restored",
            "the worker was stopped",
            "cannot be reached; the previous settings are not restored yet",  # the primary stopped before it
        ]
        assert any(reason in found["reason"] for reason in reasons), found["reason"]
        until(lambda: settings(lab) == before, 10)
        assert finished(lab, QUICK)["window_ms"]["count"] == 3


def test_an_experiment_with_an_unknown_replica_fails_with_the_reason(fresh: Lab) -> None:
    found = ended(fresh, submit(fresh, {**QUICK, "settings": {"replica9": {"delay_ms": 1}}}))
    assert (found["state"], "no replica 'replica9'" in found["reason"]) == ("failed", True)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "kind"),
        ({"kind": "x"}, "kind"),
        ({"kind": "windows", "writes": "5"}, "writes"),
        ({"kind": "windows", "nothing": 5}, "nothing"),
        ({"kind": "staleness", "settings": {"r": {"model": {"kind": "zipf"}}}}, "settings.r.model"),
        ({"kind": "levels", "levels": ["best"]}, "levels.0"),
        ({"kind": "quorum", "n": 3, "r": 0}, "r"),
        ({"kind": "sweep", "parameter": "rate", "values": [1, 2], "experiment": {"kind": "x"}}, "experiment.kind"),
    ],
)
def test_an_invalid_specification_is_rejected_with_the_field(fresh: Lab, spec: dict[str, Any], field: str) -> None:
    before = get(f"{fresh.client_url}/experiments")
    status, found = ask("POST", f"{fresh.client_url}/experiments", spec)
    assert (status, found["errors"][0]["field"]) == (422, field), found
    assert get(f"{fresh.client_url}/experiments") == before


def test_an_unknown_experiment_is_a_404(fresh: Lab) -> None:
    for method in ("GET", "DELETE"):
        assert ask(method, f"{fresh.client_url}/experiments/nothing")[0] == 404
