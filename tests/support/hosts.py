"""Hosts as network namespaces, which tests cut off from each other: requires root and ``ip``."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path
from random import SystemRandom
from typing import Self

_NOWHERE = "02:00:00:00:00:99"  # no host of the local network has it


class Network:
    """Hosts 1, 2, …; host n is 10.77.N.n. This process is 10.77.N.254, and reaches every host at any time.

    The bridge is in a namespace of its own, so that no packet filter of the machine affects it.
    """

    def __init__(self, number: int, hosts: int) -> None:
        self._name = f"lab77-{number}"
        self._prefix = f"10.77.{number}"
        self.hosts = range(1, hosts + 1)

    @classmethod
    @contextmanager
    def of(cls, hosts: int) -> Iterator[Self]:
        with ExitStack() as cleaning:
            for number in SystemRandom().sample(range(1, 255), 20):
                found = cls(number, hosts)
                if _ip("netns", "add", found._name, check=False):  # fails if another test has this number
                    break
            else:
                raise AssertionError("no number is free for the namespaces")
            cleaning.callback(found._remove, found._name)
            found._build(cleaning)
            yield found

    def _build(self, cleaning: ExitStack) -> None:
        _ip("-n", self._name, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._name, "link", "set", "bridge", "up")
        for host in self.hosts:
            _ip("netns", "add", self._namespace(host))
            cleaning.callback(self._remove, self._namespace(host))
            _ip("-n", self._namespace(host), "link", "set", "lo", "up")
            self._connect(f"host{host}", "eth0", self._namespace(host), self.address(host))
        self._connect("tests", self._name, "", f"{self._prefix}.254")

    def _connect(self, port: str, device: str, namespace: str, address: str) -> None:
        """Create a device with an address in a namespace, by default in that of the tests, and plug it in."""
        own = ["-n", namespace] if namespace else []
        peer = ["netns", namespace] if namespace else ["netns", str(os.getpid())]
        _ip("-n", self._name, "link", "add", port, "type", "veth", "peer", "name", device, *peer)
        _ip("-n", self._name, "link", "set", port, "master", "bridge", "up")
        _ip(*own, "address", "add", f"{address}/24", "dev", device)
        _ip(*own, "link", "set", device, "up")

    def _namespace(self, host: int) -> str:
        return f"{self._name}-{host}"

    @staticmethod
    def _remove(namespace: str) -> None:
        """End the processes of a namespace, which would keep its devices, and delete it."""
        found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "delete", namespace)

    def address(self, host: int) -> str:
        return f"{self._prefix}.{host}"

    def start(
        self, host: int, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a process on a host. Its process id is that of the command."""
        line = ["ip", "netns", "exec", self._namespace(host), *command]
        with output.open("ab") as file:
            return subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, env=env)

    # -- partitions ---------------------------------------------------------------------------------------------------
    def drop(self, source: int, target: int) -> None:
        """Drop every packet from one host to another, also of existing connections; the way back stays open."""
        neighbor = [self.address(target), "lladdr", _NOWHERE, "dev", "eth0", "nud", "permanent"]
        _ip("-n", self._namespace(source), "neigh", "replace", *neighbor)

    def isolate(self, host: int) -> None:
        """Drop every packet between one host and the others."""
        for other in self.hosts:
            if other != host:
                self.drop(host, other)
                self.drop(other, host)

    def heal(self) -> None:
        """Deliver all packets again."""
        for source, target in permutations(self.hosts, 2):
            arguments = ["neigh", "delete", self.address(target), "dev", "eth0"]
            _ip("-n", self._namespace(source), *arguments, check=False)

    @contextmanager
    def partition(self, cut: Callable[[], object]) -> Iterator[float]:
        """Heal at the end; yield the moment of the cut."""
        cut()
        try:
            yield time.monotonic()
        finally:
            self.heal()


def _ip(*arguments: str, check: bool = True) -> bool:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"ip {' '.join(arguments)}: {done.stderr}")
    return done.returncode == 0
