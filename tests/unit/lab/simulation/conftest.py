"""A virtual clock, a network, and clients of a simulated log."""

from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any

import pytest

from broker.connection import connect
from lab.simulation import replaced
from lab.simulation.http_connections import HttpConnections
from lab.simulation.log_connections import LogConnections
from lab.simulation.log_server import LogServer
from lab.simulation.network import Network
from lab.simulation.scheduler import Process, Scheduler
from lab.simulation.sentinel import Sentinel


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(Random(14))


@pytest.fixture
def network(scheduler: Scheduler) -> Network:
    return Network(scheduler, Random(14))


class Caller:
    """A process that makes calls, each in a task of its own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler, self.process = scheduler, Process("client")

    def begin(self, call: Callable[[], object]) -> list[Any]:
        """Return a list to which the result or the exception is added, and then the time."""
        found: list[Any] = []

        def run() -> None:
            try:
                found.append(call())
            except Exception as error:  # noqa: BLE001 - it is the test's
                found.append(error)
            found.append(self.scheduler.now_seconds())

        self.scheduler.spawn(run, self.process)
        return found

    def call(self, call: Callable[[], object]) -> Any:
        """Return what the call returns, or raise what it raises."""
        found = self.begin(call)
        self.scheduler.run(self.scheduler.now_seconds() + 600, lambda: bool(found))
        assert found, "it waits for ever"
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def pause(self, seconds: float) -> None:
        self.scheduler.run(self.scheduler.now_seconds() + seconds)


@pytest.fixture
def caller(scheduler: Scheduler) -> Caller:
    return Caller(scheduler)


class Logs:
    """Two log servers, of which the first is master, and a Sentinel."""

    def __init__(self, network: Network) -> None:
        ids = count(1)
        self.network = network
        self.first, self.second = (
            LogServer(network.scheduler, f"log{number}", port, lambda: f"id{next(ids)}")
            for number, port in ((1, 6379), (2, 6380))
        )
        self.second.is_master = False
        self.sentinel = Sentinel("sentinel", self.first)
        self.connections = LogConnections(network)
        self.connections.servers = {6379: self.first, 6380: self.second, 26379: self.sentinel}

    def client(self, port: int = 6379, answer_timeout_seconds: float = 2) -> Any:
        return connect(f"redis://127.0.0.1:{port}/0", answer_timeout_seconds)

    def stop(self, server: LogServer) -> None:
        server.stop()
        self.connections.end_server(server)


@pytest.fixture
def logs(network: Network) -> Iterator[Logs]:
    found = Logs(network)
    with replaced.installed(network.scheduler, Random(14)), found.connections.installed():
        yield found


@pytest.fixture
def http(network: Network) -> Iterator[HttpConnections]:
    found = HttpConnections(network)
    with replaced.installed(network.scheduler, Random(14)), found.installed():
        yield found
