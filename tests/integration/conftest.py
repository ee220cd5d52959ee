"""Real labs: processes on free ports, data in a temporary directory."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3

from lab.local.layout import Options
from lab.local.supervisor import Lab
from tests.support.http import POOL, ask, get, post
from tests.support.ports import base_port
from tests.support.until import until

HERE = Path(__file__).parent
# Short, because the length of a delay is rarely what is tested; the second is far enough behind the first to tell them
# apart on a busy machine.
DELAYS_MS = (20.0, 60.0)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Everything in this folder runs real processes."""
    item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Restore SIGINT: a shell may start these tests with it ignored, and their child processes would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def running_lab(directory: Path, **options: Any) -> Iterator[Lab]:
    """A separate lab, stopped at the end."""
    chosen = {"base_port": base_port(), **options}
    with Lab(Options(data_dir=directory, **chosen)) as running:
        yield running


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with two replicas for all tests of this process."""
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """The shared lab, healthy. An unexpected error of a node fails the test."""
    until(lambda: is_healthy(shared_lab), 40)
    logs = sorted((shared_lab.data_dir / "logs").glob("*.log"))
    lengths = {log: log.stat().st_size for log in logs}
    yield shared_lab
    for log, length in lengths.items():
        with log.open("rb") as file:
            file.seek(length)
            assert b"Traceback" not in file.read(), log.name


@pytest.fixture
def fresh(lab: Lab) -> Lab:
    """The lab, emptied, without faults and with short delays, in log order."""
    empty(lab)
    return lab


def empty(lab: Lab) -> None:
    """End all faults, restore short delays in log order, and reset the lab."""
    post(f"{lab.client_url}/faults/reset")
    for replica in lab.replica_urls:
        settings = {"order": "log", "seed": 0, "ack_delay_ms": 0}
        post(f"{lab.primary_url}/admin/replication-delay", {"replica": replica, **settings})
    set_delays(lab, *DELAYS_MS)
    post(f"{lab.primary_url}/admin/reset")


def is_healthy(lab: Lab) -> bool:
    """Whether every node answers and is healthy."""
    try:
        return all(ask("GET", f"{url}/health")[0] == 200 for url in [*node_urls(lab), lab.client_url, lab.worker_url])
    except (urllib3.exceptions.HTTPError, ValueError):
        return False


def set_delays(lab: Lab, *delays_ms: float) -> None:
    """Set the replicas' delays in order."""
    delays = dict(zip(lab.replica_urls, delays_ms, strict=True))
    post(f"{lab.primary_url}/admin/replication-delays", {"delays": delays})


def node_urls(lab: Lab) -> list[str]:
    """Primary and replicas."""
    return [lab.primary_url, *lab.replica_urls.values()]


def processes(pid: int) -> list[psutil.Process]:
    """A process and its children: a node's gunicorn master and its worker."""
    process = psutil.Process(pid)
    return [process, *process.children()]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Suspend the processes of a node meanwhile."""
    stopped = processes(pid)
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            process.resume()


def converge(lab: Lab, timeout_seconds: float = 20.0) -> dict[str, Any]:
    """Wait until all digests are equal at the primary's position; return the comparison."""

    def settled() -> dict[str, Any] | None:
        found = get(f"{lab.client_url}/read-compare?digest=true")
        analysis = found["analysis"]
        return found if analysis["all_consistent"] and analysis["digests_equal"] is True else None

    return until(settled, timeout_seconds)


def applied(url: str, after: str = "0-0") -> list[dict[str, Any]]:
    """The entries after a position in a replica's history of what it applied."""
    found: list[dict[str, Any]] = []
    while page := get(f"{url}/applied?after={after}&limit=10000")["applied"]:
        found += page
        after = page[-1]["position"]
    return found


def metric(url: str, name: str) -> dict[str, float]:
    """The samples of a metric, by their labels as text."""
    lines = POOL.request("GET", f"{url}/metrics").data.decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if line.startswith((name + "{", name + " "))]
    return {sample.removeprefix(name): float(value) for sample, value in samples}
