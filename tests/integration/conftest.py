"""Real labs: processes on free ports, data in a temporary directory."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest

from lab.layout import Options, free_base_port
from lab.runner import Lab
from tests.support.http import get, post
from tests.support.until import until

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder runs real processes."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell may have started these tests with SIGINT ignored, and the processes they start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with two replicas, 500 and 1500 ms, for all tests of a module. No node may have met an unexpected error."""
    directory = tmp_path_factory.mktemp("lab")
    with Lab(Options(data_dir=directory, base_port=free_base_port(SystemRandom()))) as running:
        yield running
    for log in sorted((directory / "logs").glob("*.log")):
        assert "Traceback" not in log.read_text(), log.name


@pytest.fixture
def fresh(lab: Lab) -> Lab:
    """The lab, emptied and with its first delays, in log order."""
    for replica in lab.replica_urls:
        post(f"{lab.primary_url}/admin/replication-delay", {"replica": replica, "order": "log", "seed": 0})
    set_delays(lab, 500, 1500)
    post(f"{lab.primary_url}/admin/reset")
    return lab


def set_delays(lab: Lab, *delays_ms: float) -> None:
    """Set the replicas' delays in order."""
    delays = dict(zip(lab.replica_urls, delays_ms, strict=True))
    post(f"{lab.primary_url}/admin/replication-delays", {"delays": delays})


def node_urls(lab: Lab) -> list[str]:
    """Primary and replicas."""
    return [lab.primary_url, *lab.replica_urls.values()]


def converge(lab: Lab, timeout_seconds: float = 20.0) -> dict[str, Any]:
    """Wait until all digests are equal at the primary's position; return the comparison."""

    def settled() -> dict[str, Any] | None:
        found = get(f"{lab.client_url}/read-compare?digest=true")
        analysis = found["analysis"]
        return found if analysis["all_consistent"] and analysis["digests_equal"] is True else None

    return until(settled, timeout_seconds)


def applied(url: str, after: str = "0-0") -> list[dict[str, Any]]:
    """Everything that a replica remembers to have applied after a position."""
    found: list[dict[str, Any]] = []
    while page := get(f"{url}/applied?after={after}&limit=10000")["applied"]:
        found += page
        after = page[-1]["position"]
    return found


def metric(url: str, name: str) -> dict[str, float]:
    """The samples of a metric, by their labels as text."""
    from tests.support.http import POOL

    lines = POOL.request("GET", f"{url}/metrics").data.decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if line.startswith((name + "{", name + " "))]
    return {sample.removeprefix(name): float(value) for sample, value in samples}
