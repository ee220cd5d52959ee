"""A primary with two replicas, one of them behind a delaying proxy: real servers of Valkey or Redis."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.local.log_server import binary_path
from tests.support.delaying_proxy import DelayingProxy
from tests.support.logserver import Server
from tests.support.ports import base_port
from tests.support.until import until

DELAY_SECONDS = 0.2


@dataclass(frozen=True)
class Replicas:
    primary: Server
    slow: Server
    fast: Server
    proxy: DelayingProxy

    def attach(self) -> None:
        """Make both replicas of the primary, and return when they have what it has now."""
        for server, port in ((self.slow, self.proxy.port), (self.fast, self.primary.port)):
            server.client.replicaof("127.0.0.1", str(port))
        replicas = (self.slow, self.fast)
        until(lambda: all(server.replication().get("master_link_status") == "up" for server in replicas))
        # The primary sends nothing to a replica before its first acknowledgement, up to a second after the link is up.
        self.primary.client.publish("attached", "")
        offset = self.primary.replication()["master_repl_offset"]
        until(lambda: all(server.replication()["slave_repl_offset"] >= offset for server in replicas))


@contextmanager
def running(which: str, directory: Path) -> Iterator[Replicas]:
    base = base_port()
    servers = [_server(binary_path(which), port, directory) for port in range(base, base + 3)]
    with ExitStack() as stack:
        for server in servers:
            server.launch()
            stack.callback(server.kill)
        for server in servers:
            until(server.answers)
        proxy = stack.enter_context(DelayingProxy.running(base, DELAY_SECONDS))
        found = Replicas(*servers, proxy)
        found.attach()
        yield found


def _server(binary: str, port: int, directory: Path) -> Server:
    options = {"port": port, "bind": "127.0.0.1", "dir": directory, "save": "", "repl-diskless-sync-delay": 0}
    command = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return Server([binary, *command], port, directory / f"{port}.log")


def address(server: Server, user: str = "") -> str:
    return f"redis://{user and f'{user}@'}127.0.0.1:{server.port}"
