"""Fixtures of all tests: a clean environment, and log servers, real and fake."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from lab.local.log_server import binary_path
from tests.support.cluster import ClusterServers
from tests.support.fake import fake_client
from tests.support.logserver import LogServer
from tests.support.sentinel import SentinelServers

pytest_plugins = ["tests.support.suites", "tests.support.databases.fixtures"]
REAL_SERVERS = ["valkey", pytest.param("redis-server", marks=pytest.mark.needs("redis-server"))]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove variables of a developer's own lab."""
    for name in os.environ:
        if name.startswith(("LAB_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], LogServer]]:
    """The real log servers, each started on first use."""
    running: dict[str, LogServer] = {}

    def get(which: str) -> LogServer:
        if which not in running:
            binary = binary_path(which)
            running[which] = LogServer(binary, tmp_path_factory.mktemp(which))
            running[which].start()
        return running[which]

    yield get
    for started in running.values():
        started.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LogServer]:
    """A log server of the test's own, which it can kill, stop and restart."""
    own = LogServer(binary_path("valkey"), tmp_path)
    own.start()
    yield own
    own.kill()


@pytest.fixture(params=REAL_SERVERS)
def sentinel_servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SentinelServers]:
    """A master, two replicas and three Sentinels of the test's own."""
    with SentinelServers.running(request.param, tmp_path) as started:
        yield started


@pytest.fixture(params=REAL_SERVERS)
def cluster_servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClusterServers]:
    """A cluster of the test's own: three masters with a replica each."""
    with ClusterServers.running(request.param, tmp_path) as started:
        yield started


@pytest.fixture(params=["fake", *REAL_SERVERS])
def client(request: pytest.FixtureRequest, servers: Callable[[str], LogServer]) -> Iterator[Any]:
    """An empty log server: the fake one, and each real one on this machine."""
    if request.param == "fake":
        yield fake_client()
        return
    found = connect(servers(request.param).url)
    found.flushall()
    yield found
    found.close()


@pytest.fixture
def fake() -> Any:
    """An empty fake log server."""
    return fake_client()
