"""The stack in containers: privileges, and durability across restarts and kills."""

import json
import re
import signal
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import urllib3

from tests.e2e.conftest import ROOT, SERVICES, compose, docker, healthy
from tests.support.http import ask
from tests.support.load import Writers
from tests.support.until import until

PRIMARY, CLIENT = "http://127.0.0.1:8000", "http://127.0.0.1:8003"
K6 = ["docker", "compose", "run", "--rm"]
SCRIPT = ["lab14-k6", "run", "--quiet", "/scripts/read-consistency.js"]
NO_WRITE_PASSES = {"grafana", "jaeger", "prometheus", "worker"}
pytestmark = [pytest.mark.usefixtures("stack"), pytest.mark.xdist_group("default-ports")]


def inspect(service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", compose("ps", "-q", f"lab14-{service}").strip()))[0]
    return found


def settled() -> bool:
    """Return whether every replica's digest equals the primary's."""
    try:
        status, found = ask("GET", f"{CLIENT}/read-compare?digest=true")
    except (urllib3.exceptions.HTTPError, ValueError):
        return False
    return status == 200 and found["analysis"]["all_consistent"] and found["analysis"]["digests_equal"] is True


def write_ids() -> dict[str, str]:
    """Return the write ID of each log entry by position, as listed by redis-cli."""
    lines = compose("exec", "-T", "lab14-redis", "redis-cli", "XRANGE", "lab14:log", "-", "+").splitlines()
    found, position = {}, ""
    for name, value in pairwise(lines):
        if re.fullmatch(r"[0-9]+-[0-9]+", name) and value == "op":
            position = name
        if name == "write_id":
            found[position] = value
    return found


def test_the_compose_file_is_valid_without_warnings() -> None:
    done = subprocess.run(
        ["docker", "compose", "--profile", "*", "config"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_container_runs_unprivileged_and_isolated(service: str) -> None:
    status = compose("exec", "-T", f"lab14-{service}", "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert fields["NoNewPrivs"] == "1"
    host = inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"] is (service != "grafana")  # Grafana unpacks plugins at startup
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    for bindings in (host["PortBindings"] or {}).values():
        assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}


def test_restarts_and_a_killed_log_server_lose_no_write_under_k6_load() -> None:
    ask("POST", f"{PRIMARY}/admin/reset")
    with Writers(PRIMARY, count=4, rate=60, keys=50) as writers:
        k6 = subprocess.Popen(
            [*K6, "-e", "DURATION=60s", *SCRIPT], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        def recovers() -> None:
            until(healthy, 30)
            seen = len(writers.acknowledged)
            until(lambda: len(writers.acknowledged) > seen + 30, 30)

        recovers()
        for services in [[one] for one in sorted(SERVICES - NO_WRITE_PASSES)] + [sorted(NO_WRITE_PASSES)]:
            compose("restart", *(f"lab14-{service}" for service in services))
            recovers()
        restarts = inspect("redis")["RestartCount"]
        compose("exec", "-T", "lab14-redis", "sh", "-c", "kill -9 -1", check=False)
        until(lambda: inspect("redis")["RestartCount"] > restarts, 20)
        recovers()
        k6.send_signal(signal.SIGINT)
        k6.wait(60)
    until(settled, 60)
    assert not writers.gave_up
    in_log = write_ids()
    acknowledged = {write["position"]: write["write_id"] for write in writers.acknowledged}
    assert len(acknowledged) == len(writers.acknowledged)
    assert acknowledged.items() <= in_log.items()
    assert len(set(in_log.values())) == len(in_log), "a write is in the log twice"
    print(f"\n{len(acknowledged)} acknowledged writes, all in the log of {len(in_log)} entries, digests equal")


def test_torture_finds_no_violation_on_the_stack() -> None:
    before = ask("GET", f"{PRIMARY}/admin/replication-delays")[1]
    line = [sys.executable, "-m", "lab", "torture", "--compose", "--seconds", "10", "--seed", "3", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert sum(count for kind, count in found["acts"].items() if kind != "delay") >= 2
    print(f"\n{found['acts']}, {found['operations']}")
    assert ask("GET", f"{PRIMARY}/admin/replication-delays")[1] == before
    until(lambda: settled() and healthy(), 30)


def test_a_paused_replica_breaks_k6_thresholds() -> None:
    compose("pause", "lab14-replica2")
    try:
        done = subprocess.run(
            [*K6, "-e", "DURATION=3s", "-e", "SESSION_RATE=1", "-e", "READ_RATE=1", *SCRIPT],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
    finally:
        compose("unpause", "lab14-replica2")
    assert done.returncode == 99, done.stdout + done.stderr
    assert "BROKEN  window_ms" in done.stdout
    assert "read_your_writes_violations" in done.stdout
    until(healthy, 30)
