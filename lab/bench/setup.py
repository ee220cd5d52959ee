"""Where the bench takes place: labs of its own, and the baselines beside them, as child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from broker.connection import connect
from broker.position import Position
from lab.client import NodeUnreachable, call
from lab.errors import LabError
from lab.local.supervisor import Lab

# The same core as the primary's, however many there are.
_BASELINE_OFFSETS = {"": 64, "metrics": 128, "tracing": 192}
_START_SECONDS = 30.0
_SETTLED_SECONDS = 120.0


@contextmanager
def running(replicas: int = 2, environment: Mapping[str, str] | None = None) -> Iterator[Lab]:
    """A temporary lab, with these variables in its environment."""
    with Lab.temporary(replicas=replicas, environment=environment or {}) as lab:
        yield lab


@contextmanager
def bare_primary(
    lab: Lab, argument: Literal["", "metrics", "tracing"] = "", environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The bare Flask app on the lab's log server; its URL."""
    port = lab.options.base_port + _BASELINE_OFFSETS[argument]
    own = {"LAB_PORT": str(port), "LAB_REDIS_URL": lab.redis_url}
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, "-m", "lab.bench.baselines.flask_app", argument],
        env={**os.environ, **(environment or {}), **own},
    ) as process:
        try:
            _await(url)
            yield url
        finally:
            process.terminate()
            process.wait()


def set_delays(lab: Lab, *delays_ms: float) -> None:
    """Set the delay of each replica; the last stands for those after it. Raises ``LabError``."""
    delays = {
        replica: delays_ms[min(number, len(delays_ms) - 1)] for number, replica in enumerate(sorted(lab.replica_urls))
    }
    ask("POST", f"{lab.primary_url}/admin/replication-delays", {"delays": delays})


def settle(lab: Lab) -> None:
    """Return when every replica has everything. Raises ``LabError``."""
    deadline = time.monotonic() + _SETTLED_SECONDS
    while any(replica["lag_versions"] for replica in ask("GET", f"{lab.primary_url}/replicas")["replicas"]):
        if time.monotonic() > deadline:
            raise LabError(f"the replicas have not caught up within {_SETTLED_SECONDS:g} s")
        time.sleep(0.05)


def empty(lab: Lab) -> None:
    """Empty the lab, and the baselines' keys. Raises ``LabError``."""
    ask("POST", f"{lab.primary_url}/admin/reset")
    client = connect(lab.redis_url)
    for key in client.scan_iter("bare:*"):
        client.unlink(key)


def position(lab: Lab) -> Position:
    """Where the log ends. Raises ``LabError``."""
    return Position.parse(ask("GET", f"{lab.primary_url}/version")["position"])


def value(url: str, key: str) -> Any:
    """What a node has for a key; ``None`` where it has nothing."""
    status, found = call("GET", f"{url}/data/{key}")
    return found["value"] if status == 200 else None


def ask(method: str, url: str, body: object = None, timeout_seconds: float = 30) -> dict[str, Any]:
    """What a node answers. Raises ``LabError`` where it refuses."""
    status, found = call(method, url, body, timeout_seconds)
    if status != 200:
        raise LabError(f"{url} answered {status}: {found.get('detail')}")
    return found


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
