"""Delay models on a real lab: applied delays follow the model, and invalid ones are refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.delay.models import from_json
from lab.local.supervisor import Lab
from tests.integration.conftest import converge
from tests.support.http import ask, get, post
from tests.support.kolmogorov import p_value

REPLICA = "lab14-replica1"
ENTRIES = 2000
MODELS: dict[str, dict[str, Any]] = {
    "uniform": {"kind": "uniform", "low_ms": 20, "high_ms": 180},
    "exponential": {"kind": "exponential", "mean_ms": 100},
    "mixture": {
        "kind": "mixture",
        "parts": [
            {"weight": 9, "model": {"kind": "pareto", "scale_ms": 40, "alpha": 3}},
            {"weight": 1, "model": {"kind": "exponential", "mean_ms": 400}},
        ],
    },
}


def configure(lab: Lab, **settings: Any) -> dict[str, Any]:
    return post(f"{lab.primary_url}/admin/replication-delay", {"replica": REPLICA, **settings})


def write_many(lab: Lab, count: int) -> None:
    """Write ``count`` entries in one batch."""
    changes = [{"key": f"k{number % 50}", "value": number} for number in range(count)]
    found = post(f"{lab.primary_url}/data/batch", changes)
    assert found["acknowledged"] == count, found


def applied_now(lab: Lab) -> list[dict[str, Any]]:
    """Return the entries of the present epoch that the replica has applied, in its order."""
    epoch = get(f"{lab.primary_url}/version")["epoch"]
    found: list[dict[str, Any]] = get(f"{lab.replica_urls[REPLICA]}/applied?limit=10000")["applied"]
    return [entry for entry in found if entry["position"].startswith(f"{epoch}-") and entry["position"] != f"{epoch}-0"]


@pytest.mark.parametrize("kind", MODELS)
def test_in_order_of_arrival_the_applied_delays_follow_the_model(fresh: Lab, kind: str) -> None:
    model = from_json(MODELS[kind])
    changed = configure(fresh, model=MODELS[kind], order="arrival", seed=5)
    assert changed["delay_ms"] == pytest.approx(model.mean_ms, abs=0.001)
    write_many(fresh, ENTRIES)
    converge(fresh)
    delays_ms = [entry["applied_after_ms"] - entry["lateness_ms"] for entry in applied_now(fresh)]
    assert len(delays_ms) == ENTRIES
    found_p = p_value(delays_ms, model.cdf)
    print(f"\n{kind}: {len(delays_ms)} applied, p = {found_p:.2f}, mean {sum(delays_ms) / len(delays_ms):.1f} ms")
    assert found_p > 0.01


@pytest.mark.needs("minutes")
def test_with_one_seed_log_order_is_the_running_maximum_of_order_arrival(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "docs" / "figures.py"
    line = [sys.executable, str(script), "orders", "--out", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["entries"] == 60
    assert found["largest_difference_ms"] <= 0.002  # due times are computed, to the microsecond
    assert (tmp_path / "orders.svg").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": {"kind": "exponential", "mean_ms": -1}}, "mean_ms"),
        ({"model": {"kind": "zipf"}}, "kind must be one of"),
        ({"order": "random"}, "order"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({}, "give delay_ms"),
    ],
)
def test_an_invalid_model_is_refused_and_changes_nothing(fresh: Lab, settings: dict[str, Any], said: str) -> None:
    before = get(f"{fresh.primary_url}/admin/replication-delays")
    status, answer = ask("POST", f"{fresh.primary_url}/admin/replication-delay", {"replica": REPLICA, **settings})
    assert (status, said in answer["detail"]) == (422, True), answer
    assert get(f"{fresh.primary_url}/admin/replication-delays") == before


def lab_delay(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "lab", "delay", *arguments, "--client-url", lab.client_url]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_shows_and_changes_every_setting(fresh: Lab) -> None:
    ack = MODELS["exponential"]
    given = ("--delay", "40", "--ack", json.dumps(ack), "--read", "0", "--order", "arrival", "--seed", "3")
    done = lab_delay(fresh, "set", REPLICA, *given)
    said = "delay 40 ms, ack exponential, mean 100 ms, read 0 ms, order arrival, seed 3"
    assert (done.returncode, done.stdout) == (0, f"{REPLICA}: {said}.\n"), done.stderr
    found = json.loads(lab_delay(fresh, "show", "--json").stdout)
    assert found[REPLICA] == {
        "delay_ms": 40, "model": {"kind": "fixed", "ms": 40}, "ack_delay_ms": 100, "ack_model": ack,
        "read_delay_ms": 0, "read_model": {"kind": "fixed", "ms": 0}, "order": "arrival", "seed": 3,
    }  # fmt: skip
    assert set(found) == set(fresh.replica_urls)
    assert "exponential, mean 100 ms" in lab_delay(fresh, "show").stdout
    refused = lab_delay(fresh, "set", "lab14-replica9", "--ack", "3000")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "There is no replica 'lab14-replica9'; registered: lab14-replica1, lab14-replica2" in refused.stderr
