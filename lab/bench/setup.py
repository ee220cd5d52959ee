"""The processes of the bench: temporary labs and baselines, and their resource use."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import psutil

from broker.position import Position
from lab.client import NodeUnreachable, call
from lab.errors import LabError
from lab.local.supervisor import Lab

# Offsets of ports whose processes share the primary's core, whatever the number of cores.
_BASELINE_OFFSETS = {"": 64, "metrics": 128, "tracing": 192}
_START_SECONDS = 30.0
_SETTLED_SECONDS = 120.0


@contextmanager
def bare_primary(
    lab: Lab, argument: Literal["", "metrics", "tracing"] = "", environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    port = lab.options.base_port + _BASELINE_OFFSETS[argument]
    own = {"LAB_PORT": str(port), "LAB_REDIS_URL": lab.redis_url}
    url = f"http://127.0.0.1:{port}"
    line = [sys.executable, "-m", "lab.bench.baselines.flask_app", argument]
    with subprocess.Popen(line, env={**os.environ, **(environment or {}), **own}) as process:
        try:
            _await(url)
            yield url
        finally:
            process.terminate()


def _await(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            call("GET", f"{url}/health")
            return
        except NodeUnreachable:
            if time.monotonic() > deadline:
                raise LabError(f"{url} did not start within {_START_SECONDS:g} s") from None
            time.sleep(0.02)


def set_delays(lab: Lab, *delays_ms: float) -> None:
    """Set the delay of each replica; the last one applies to all remaining replicas."""
    last = len(delays_ms) - 1
    delays = {replica: delays_ms[min(number, last)] for number, replica in enumerate(sorted(lab.replica_urls))}
    ask("POST", f"{lab.primary_url}/admin/replication-delays", {"delays": delays})


def settle(lab: Lab) -> None:
    deadline = time.monotonic() + _SETTLED_SECONDS
    while any(replica["lag_versions"] for replica in ask("GET", f"{lab.primary_url}/replicas")["replicas"]):
        if time.monotonic() > deadline:
            raise LabError(f"the replicas have not caught up within {_SETTLED_SECONDS:g} s")
        time.sleep(0.05)


def position(lab: Lab) -> Position:
    return Position.parse(ask("GET", f"{lab.primary_url}/version")["position"])


def applied_after(url: str, start: Position) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask("GET", f"{url}/applied?after={start}")["applied"]
    return found


def ask(method: str, url: str, body: object = None, timeout_seconds: float = 30) -> dict[str, Any]:
    """Return a node's response. Raises ``LabError`` if the status is not 200."""
    status, found = call(method, url, body, timeout_seconds)
    if status != 200:
        raise LabError(f"{url} answered {status}: {found.get('detail')}")
    return found


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its children in 10^6 bytes: PSS if reported, else (macOS) RSS."""
    found = [process.memory_full_info() for process in _with_children(pid)]
    return sum(getattr(one, "pss", one.rss) for one in found) / 1e6


def cpu_seconds(pid: int) -> float:
    times = [process.cpu_times() for process in _with_children(pid)]
    return float(sum(one.user + one.system for one in times))


def _with_children(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
