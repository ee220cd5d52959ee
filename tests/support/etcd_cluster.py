"""An etcd cluster of three members, whose messages to each other can be delayed."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import urllib3

from tests.support.delaying_proxy import DelayingProxy
from tests.support.ports import base_port
from tests.support.until import until

DELAY_SECONDS = 0.05
_ELECTION_MS = 1000


class Member:
    def __init__(self, port: int, peer: DelayingProxy, process: "subprocess.Popen[bytes]") -> None:
        self.port, self.peer, self.process = port, peer, process
        self.url = f"http://127.0.0.1:{port}"

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        found: dict[str, Any] = urllib3.request("POST", f"{self.url}/v3/{path}", json=body, timeout=5.0).json()
        return found

    def status(self) -> dict[str, Any]:
        """The status, or nothing while the member does not answer or knows no leader."""
        with suppress(urllib3.exceptions.HTTPError):
            found = self.post("maintenance/status")
            return found if "leader" in found else {}
        return {}

    def leads(self) -> bool:
        found = self.status()
        return bool(found) and found["leader"] == found["header"]["member_id"]


@contextmanager
def running(directory: Path) -> Iterator[list[Member]]:
    """Start the members, and return them when they have elected a leader, which is the first of them."""
    base = base_port()
    with ExitStack() as stack:
        peers = [stack.enter_context(DelayingProxy.running(base + 3 + n, 0.0)) for n in range(3)]
        cluster = ",".join(f"n{n}=http://127.0.0.1:{peer.port}" for n, peer in enumerate(peers))
        members = [Member(base + n, peer, _start(directory, n, base, peer, cluster)) for n, peer in enumerate(peers)]
        for member in members:
            stack.callback(member.process.wait)
            stack.callback(member.process.kill)
        until(lambda: all(member.status() for member in members), 20)
        yield sorted(members, key=lambda member: not member.leads())


def _start(directory: Path, n: int, base: int, peer: DelayingProxy, cluster: str) -> "subprocess.Popen[bytes]":
    client, own = f"http://127.0.0.1:{base + n}", f"http://127.0.0.1:{base + 3 + n}"
    options = {
        "name": f"n{n}",
        "data-dir": directory / f"n{n}",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": own,
        "initial-advertise-peer-urls": f"http://127.0.0.1:{peer.port}",
        "initial-cluster": cluster,
        "initial-cluster-state": "new",
        "heartbeat-interval": 100,
        "election-timeout": _ELECTION_MS,
        "auth-token": "simple",
    }
    command = ["etcd", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    with (directory / f"n{n}.log").open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
