"""The processes of the bench: temporary labs, the baselines beside them, and what either takes of the machine."""

from __future__ import annotations

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

# Offsets of ports that run on the same core as the primary, whatever the number of cores.
_BASELINE_OFFSETS = {"": 64, "metrics": 128, "tracing": 192}
_START_SECONDS = 30.0
_SETTLED_SECONDS = 120.0


@contextmanager
def running(replicas: int = 2, environment: Mapping[str, str] | None = None) -> Iterator[Lab]:
    """Run a temporary lab, with these variables in its environment."""
    with Lab.temporary(replicas=replicas, environment=environment or {}) as lab:
        yield lab


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def bare_primary(
    lab: Lab, argument: Literal["", "metrics", "tracing"] = "", environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run the bare Flask app on the lab's log server; yields its URL."""
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
        except NodeUnreachable:
            if time.monotonic() > deadline:
                raise LabError(f"{url} did not start within {_START_SECONDS:g} s") from None
            time.sleep(0.02)
        else:
            return


def set_delays(lab: Lab, *delays_ms: float) -> None:
    """Set the delay of each replica; the last applies to all further ones. Raises ``LabError``."""
    delays = {
        replica: delays_ms[min(number, len(delays_ms) - 1)] for number, replica in enumerate(sorted(lab.replica_urls))
    }
    ask("POST", f"{lab.primary_url}/admin/replication-delays", {"delays": delays})


def settle(lab: Lab) -> None:
    """Return when every replica has applied everything. Raises ``LabError``."""
    deadline = time.monotonic() + _SETTLED_SECONDS
    while any(replica["lag_versions"] for replica in ask("GET", f"{lab.primary_url}/replicas")["replicas"]):
        if time.monotonic() > deadline:
            raise LabError(f"the replicas have not caught up within {_SETTLED_SECONDS:g} s")
        time.sleep(0.05)


def position(lab: Lab) -> Position:
    """Return the head of the log. Raises ``LabError``."""
    return Position.parse(ask("GET", f"{lab.primary_url}/version")["position"])


def applied_after(url: str, start: Position) -> list[dict[str, Any]]:
    """Return the entries that a replica has applied after a position. Raises ``LabError``."""
    found: list[dict[str, Any]] = ask("GET", f"{url}/applied?after={start}")["applied"]
    return found


def ask(method: str, url: str, body: object = None, timeout_seconds: float = 30) -> dict[str, Any]:
    """Return a node's answer. Raises ``LabError`` if it is not a 200."""
    status, found = call(method, url, body, timeout_seconds)
    if status != 200:
        raise LabError(f"{url} answered {status}: {found.get('detail')}")
    return found


def memory_mb(pid: int) -> float:
    """Return the memory of a process and all its children, in 10^6 bytes, with their share of common pages.

    Where the system does not report shares (macOS), resident memory, which counts common pages for each process.
    """
    found = [process.memory_full_info() for process in _with_children(pid)]
    return sum(getattr(one, "pss", one.rss) for one in found) / 1e6


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and all its children have used so far."""
    times = [process.cpu_times() for process in _with_children(pid)]
    return float(sum(one.user + one.system for one in times))


def _with_children(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
