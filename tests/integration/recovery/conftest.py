"""A lab with a short log and short delay lines, and helpers to observe its recovery."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from broker.registry import Events
from lab.local.supervisor import Lab
from tests.integration.conftest import converge, empty, is_healthy, metric, node_urls, processes, running_lab
from tests.support.http import get, post
from tests.support.load import Writers
from tests.support.until import until

REPLICA, OTHER = "lab14-replica1", "lab14-replica2"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run the tests of the shared lab in one worker."""
    if "shared_lab" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.xdist_group("recovery"))


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with short_lab(tmp_path_factory.mktemp("short")) as running:
        yield running


@contextmanager
def short_lab(directory: Path) -> Iterator[Lab]:
    """A lab that keeps 50 entries in its log, and 100 in a delay line, and restarts a process soon, however often."""
    bounds = {"LAB_LOG_KEEP": "50", "LAB_LINE_MAX_ENTRIES": "100"}
    with running_lab(directory, environment=bounds, restart_pauses_seconds=(0.1,)) as running:
        yield running


@pytest.fixture
def quick(shared_lab: Lab) -> Lab:
    """The lab, healthy, emptied and with short delays."""
    until(lambda: is_healthy(shared_lab), 40)
    empty(shared_lab)
    return shared_lab


def log_of(lab: Lab, node: str) -> str:
    return (lab.data_dir / "logs" / f"{node}.log").read_text()


def resyncs(lab: Lab, reason: str, replica: str = REPLICA) -> float:
    return metric(lab.replica_urls[replica], "ec_resyncs_total").get(f'{{reason="{reason}",replica="{replica}"}}', 0)


def fill(lab: Lab, count: int, prefix: str = "k") -> list[dict[str, Any]]:
    """Write this many entries to 40 keys."""
    return [post(f"{lab.primary_url}/data", {"key": f"{prefix}{n % 40}", "value": n}) for n in range(count)]


def status(lab: Lab, replica: str = REPLICA) -> dict[str, Any]:
    return next(one for one in get(f"{lab.client_url}/status")["replicas"] if one["replica_id"] == replica)


def registered(lab: Lab) -> dict[str, Any]:
    return next(one for one in get(f"{lab.primary_url}/replicas")["replicas"] if one["replica_id"] == REPLICA)


def told(lab: Lab, kind: str) -> list[dict[str, str]]:
    found = Events(connect(lab.redis_url)).after("0-0", 1, 10_000)
    return [event.fields for event in found if event.fields["kind"] == kind]


def kill(lab: Lab, *nodes: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Suspend processes, run the block, kill them, and wait until they have been restarted."""
    pids = {node: lab.pids[node] for node in nodes}
    found = [process for pid in pids.values() for process in processes(pid)]
    for process in found:
        process.suspend()
    meanwhile()
    for process in found:
        process.kill()
    until(lambda: all(lab.pids.get(node) not in {None, pid} for node, pid in pids.items()), 20)


def all_there(lab: Lab, load: Writers) -> None:
    """Assert that every acknowledged write is in the log once, and all nodes are equal."""
    assert not load.gave_up
    found = converge(lab, 60)
    acknowledged = sorted(written["version"] for written in load.acknowledged)
    assert acknowledged == list(range(1, found["primary"]["version"] + 1))
    newest = {written["key"]: written["value"] for written in sorted(load.acknowledged, key=lambda w: w["version"])}
    for url in node_urls(lab):
        assert get(f"{url}/data")["data"] == newest
