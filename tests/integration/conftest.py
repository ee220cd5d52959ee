"""Real labs: processes on free ports, data in a temporary directory."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3

from broker.connection import connect
from broker.registry import Registry
from lab.local.layout import Options
from lab.local.supervisor import Lab
from tests.support.http import POOL, ask, get, post
from tests.support.ports import base_port
from tests.support.until import until

HERE = Path(__file__).parent
# Short, because the length of a delay is rarely tested; far enough apart to be distinguished on a busy machine.
DELAYS_MS = (20.0, 60.0)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark all tests in this folder: they run real processes."""
    item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Restore SIGINT: a shell may have started these tests with it ignored, which child processes would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def running_lab(directory: Path, **options: Any) -> Iterator[Lab]:
    """Run a separate lab."""
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
    """The shared lab, healthy. No node must log an unexpected error during the test."""
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
    """The lab without data and faults, with short delays, in log order."""
    empty(lab)
    return lab


def empty(lab: Lab) -> None:
    """End all faults, restore short delays in log order, reset the lab, and wait until nothing is pending."""
    post(f"{lab.client_url}/faults/reset")
    for replica in lab.replica_urls:
        settings = {"order": "log", "seed": 0, "ack_delay_ms": 0}
        post(f"{lab.primary_url}/admin/replication-delay", {"replica": replica, **settings})
    set_delays(lab, *DELAYS_MS)
    post(f"{lab.primary_url}/admin/reset")
    # A replica shows the reset as soon as it has read it, and acknowledges it later.
    until(lambda: not any(one["pending"] for one in replicas(lab)), state=lambda: (replicas(lab), pending(lab)))


def replicas(lab: Lab) -> list[dict[str, Any]]:
    """Return what the primary knows of each replica."""
    found: list[dict[str, Any]] = get(f"{lab.primary_url}/replicas")["replicas"]
    return found


def pending(lab: Lab) -> dict[str, list[dict[str, Any]]]:
    """Return the oldest pending entries of each replica."""
    log = connect(lab.redis_url)
    return {name: log.xpending_range("lab14:log", name, "-", "+", 3) for name in lab.replica_urls}


def is_healthy(lab: Lab) -> bool:
    """Return whether every node answers and is healthy."""
    try:
        return all(ask("GET", f"{url}/health")[0] == 200 for url in [*node_urls(lab), lab.client_url, lab.worker_url])
    except (urllib3.exceptions.HTTPError, ValueError):
        return False


def set_delays(lab: Lab, *delays_ms: float) -> None:
    """Set the delays of the replicas, in order."""
    delays = dict(zip(lab.replica_urls, delays_ms, strict=True))
    post(f"{lab.primary_url}/admin/replication-delays", {"delays": delays})


def wait_for_settings(lab: Lab) -> None:
    """Wait until every replica has made its present settings active, which takes a busy machine a while."""
    current = {name: found.as_text() for name, found in Registry(connect(lab.redis_url)).settings().items()}

    def active(replica: str) -> str:
        log = (lab.data_dir / "logs" / f"{replica}.log").read_text(errors="replace")
        return log.rpartition("active settings: ")[2].partition("\n")[0]

    until(lambda: all(active(replica) == current.get(replica) for replica in lab.replica_urls))


def node_urls(lab: Lab) -> list[str]:
    """Return the URLs of the primary and the replicas."""
    return [lab.primary_url, *lab.replica_urls.values()]


def processes(pid: int) -> list[psutil.Process]:
    """Return a process and its children: a node's gunicorn master and its worker."""
    process = psutil.Process(pid)
    return [process, *process.children()]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Suspend a node for the block."""
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
    """Return all entries in a replica's history of applied ones after a position."""
    found: list[dict[str, Any]] = []
    while page := get(f"{url}/applied?after={after}&limit=10000")["applied"]:
        found += page
        after = page[-1]["position"]
    return found


def metric(url: str, name: str) -> dict[str, float]:
    """Return the samples of a metric, by their labels as text."""
    lines = POOL.request("GET", f"{url}/metrics").data.decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if line.startswith((name + "{", name + " "))]
    return {sample.removeprefix(name): float(value) for sample, value in samples}
