"""The probe on a real lab, whose delays are known: calibration, the digital twin, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from broker.connection import connect
from broker.delay.line import Schedule
from broker.delay.models import from_json
from broker.history import History
from broker.position import Position
from lab.cli import main
from lab.local.supervisor import Lab
from lab.probe import instrument
from lab.probe.certainty import TIMES_SECONDS, Certainty
from lab.probe.instrument import Limits, Replica, Run, run
from lab.probe.lab import node
from tests.integration.conftest import wait_for_settings
from tests.support.http import get, post
from tests.support.until import until

LIMITS = Limits(writes_per_second=40.0, seconds=2.0)
EXPONENTIAL = {"kind": "exponential", "mean_ms": 100}
SEED = 7
Settings = dict[str, Any]


@pytest.fixture(autouse=True)
def _on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other tests slow down the writes, which would end a run."""
    monkeypatch.setattr(instrument, "_SLOWER_SECONDS", 10.0)


class Moments(NamedTuple):
    """When a write was due on a replica and when it had been applied, by the clock of the probe."""

    due: float
    applied: float


def configure(lab: Lab, *settings: Settings) -> None:
    for replica, chosen in zip(lab.replica_urls, settings, strict=True):
        post(f"{lab.primary_url}/admin/replication-delay", {"replica": replica, "seed": SEED, **chosen})
    wait_for_settings(lab)


def measured(lab: Lab) -> Run:
    primary = node(lab.primary_url, lab.primary_url)
    return run(primary, [node(url, lab.primary_url) for url in lab.replica_urls.values()], LIMITS)


def truth(lab: Lab, replica: str, settings: Settings) -> dict[int, Moments]:
    """Return the moments of every write: due as the log's entry and the schedule say, applied as the replica says."""
    offset = time.time() - time.monotonic()  # the log server's clock is this machine's
    schedule = Schedule(from_json(settings["model"]), settings["order"], SEED, replica)
    epoch = Position.parse(get(f"{lab.primary_url}/version")["position"]).epoch
    shown = get(f"{lab.replica_urls[replica]}/applied?after={epoch}-0&limit=10000")["applied"]
    applied = {entry["position"]: entry for entry in shown}
    found: dict[int, Moments] = {}
    ahead_us = 0
    for entry in History(connect(lab.redis_url)).after(Position(0, 0), 10_000):
        if entry.key.startswith("lab_probe:") and entry.op == "set":
            due_us = entry.at_us + schedule.delay_us(entry.position)
            ahead_us = max(ahead_us, due_us)
            after_ms = applied[str(entry.position)]["applied_after_ms"]
            due = (ahead_us if settings["order"] == "log" else due_us) / 1e6 - offset
            found[int(entry.value)] = Moments(due, (entry.at_us + after_ms * 1000) / 1e6 - offset)
    return found


def require_truth(replica: Replica, moments: dict[int, Moments]) -> None:
    assert len(replica.brackets) == LIMITS.writes
    shares = Certainty([found.window for found in replica.brackets])
    windows = []
    for found in replica.brackets:
        due, applied = moments[found.number]
        assert found.high is not None
        assert found.high >= due
        windows.append((due - found.acked, applied - found.acked))
    for at in TIMES_SECONDS:
        at_least, at_most = shares.stale(at)[:2]
        assert at_least is not None
        assert at_most is not None
        assert share(at, [due for due, _ in windows]) <= at_most
        assert at_least <= share(at, [applied for _, applied in windows])


def share(at: float, windows: Sequence[float]) -> float:
    return sum(window > at for window in windows) / len(windows)


@pytest.mark.parametrize(
    "settings",
    [
        ({"model": {"kind": "fixed", "ms": 200}, "order": "log"}, {"model": EXPONENTIAL, "order": "arrival"}),
        ({"model": EXPONENTIAL, "order": "log"}, {"model": {"kind": "fixed", "ms": 0}, "order": "arrival"}),
    ],
    ids=["fixed, and exponential in order of arrival", "exponential in log order, and none"],
)
def test_the_truth_lies_within_the_bounds(fresh: Lab, settings: Sequence[Settings]) -> None:
    configure(fresh, *settings)
    found = measured(fresh)
    assert (found.ended, found.not_removed, found.errors) == ("", "", 0)
    for name, replica, chosen in zip(fresh.replica_urls, found.replicas, settings, strict=True):
        require_truth(replica, truth(fresh, name, chosen))
        assert json.loads(replica.settings.values["delay"]) == chosen["model"]
        widths = sorted(one.high - one.low for one in replica.brackets if one.high is not None)
        print(f"\n{name}: {replica.reads / LIMITS.writes:.1f} reads a write, width p50 {widths[40] * 1000:.1f} ms")
    assert get(f"{fresh.primary_url}/data")["data"] == {}


def probe(lab: Lab, *arguments: str) -> dict[str, Any]:
    line = ["probe", "lab", "--data-dir", str(lab.data_dir), "--rate", "50", "--seconds", "2", "--json", *arguments]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_lab_with_the_measured_trace_shows_the_same_distribution(fresh: Lab, tmp_path: Path) -> None:
    store = {"model": {"kind": "lognormal", "median_ms": 60, "sigma": 0.7}, "order": "arrival"}
    configure(fresh, store, {"model": {"kind": "fixed", "ms": 0}, "order": "log"})
    original = probe(fresh, "--trace", str(tmp_path / "lag.csv"))["replicas"][0]
    post(f"{fresh.primary_url}/admin/reset")
    line = ("delay", "set", "lab14-replica2", "--delay", str(tmp_path / "lag-1.csv"), "--order", "arrival")
    done = CliRunner().invoke(main, [*line, "--client-url", fresh.client_url])
    assert done.exit_code == 0, done.output
    wait_for_settings(fresh)
    twin = probe(fresh)["replicas"][1]
    assert twin["settings"]["mean"] != "0 ms"
    assert twin["stale"][-1]["configured"] == [0, 0]
    at_least, at_most = twin["stale"][3]["configured"]
    assert 0 < at_least <= at_most < 1
    assert at_least <= twin["stale"][3]["high"]
    assert twin["stale"][3]["low"] <= at_most
    pairs = [*zip(original["stale"], twin["stale"], strict=True)]
    pairs += [(interval, twin["quantiles_ms"][name]) for name, interval in original["quantiles_ms"].items()]
    for one, other in pairs:
        assert one["low"] <= (other["high"] or float("inf")), (one, other)
        assert other["low"] <= (one["high"] or float("inf")), (one, other)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_ctrl_c_shows_what_was_measured_and_leaves_nothing(fresh: Lab, sent: signal.Signals) -> None:
    line = [sys.executable, "-m", "lab", "probe", "lab", "--data-dir", str(fresh.data_dir)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        until(lambda: len(get(f"{fresh.primary_url}/data")["data"]) > 0, 30)
        os.kill(started.pid, sent)
        shown, errors = started.communicate(timeout=30)
    assert "it was interrupted" in shown
    assert "p99 of the window" in shown
    assert "configured" in shown
    assert (errors, started.returncode) == ("", 1)
    assert get(f"{fresh.primary_url}/data")["data"] == {}
