"""Where a torture run takes place: a lab of its own, or the stack in containers. Either can be killed in parts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from lab.errors import LabError
from lab.local import layout
from lab.local.layout import NAMESPACE, Options
from lab.local.supervisor import LOG_SERVER, Lab

_COMPOSE_SECONDS = 60.0


class Target(Protocol):
    """A running lab. Methods raise ``LabError`` where it cannot be done just now."""

    client_url: str
    primary_url: str
    processes: list[str]

    def redis_url(self) -> str:
        """Where the log server is now."""

    def kill(self, process: str) -> None:
        """End a process at once; it is started again."""

    def stop(self, process: str) -> Callable[[], None]:
        """Have a process do nothing any more; what is returned lets it go on."""

    def start_what_ended(self) -> None:
        """Start what does not run and nobody else starts."""


def native_processes(replicas: int) -> list[str]:
    """What can be killed of a lab on this machine with so many replicas."""
    nodes = [place.node_id for place in layout.places(Options(replicas=replicas)) if place.role != "worker"]
    return sorted([*nodes, LOG_SERVER])


class NativeTarget:
    """A lab on this machine."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.client_url = lab.client_url
        self.primary_url = lab.primary_url
        self.processes = native_processes(lab.options.replicas)

    def redis_url(self) -> str:
        """See ``Target``."""
        return self._lab.redis_url

    def kill(self, process: str) -> None:
        """See ``Target``."""
        self._signal(self._pid(process), signal.SIGKILL)

    def stop(self, process: str) -> Callable[[], None]:
        """See ``Target``."""
        pid = self._pid(process)
        self._signal(pid, signal.SIGSTOP)

        def go_on() -> None:
            with suppress(LabError):  # it has been killed meanwhile
                self._signal(pid, signal.SIGCONT)

        return go_on

    def start_what_ended(self) -> None:
        """See ``Target``. The supervisor does."""

    def _pid(self, process: str) -> int:
        pid = self._lab.pids.get(process)
        if pid is None:
            raise LabError(f"{process} is being started again")
        return pid

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            os.killpg(pid, number)  # a node is a master and its worker
        except ProcessLookupError:
            raise LabError("it has just ended") from None


class ComposeTarget:
    """The stack of docker-compose.yml, as it runs."""

    client_url = "http://127.0.0.1:8003"
    primary_url = "http://127.0.0.1:8000"

    def __init__(self) -> None:
        """Raises ``LabError`` where it does not run."""
        running = set(self._compose("ps", "--services", "--status", "running").split())
        nodes = {f"{NAMESPACE}-primary", f"{NAMESPACE}-client", LOG_SERVER}
        nodes |= {
            one for one in self._compose("config", "--services").split() if one.startswith(f"{NAMESPACE}-replica")
        }
        if missing := nodes - running:
            raise LabError(
                f"{', '.join(sorted(missing))} does not run; `docker compose up --build -d` starts the stack"
            )
        self.processes = sorted(nodes)

    def redis_url(self) -> str:
        """See ``Target``. The log server is not published, but its container can be reached from a Linux host."""
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        addresses = self._run("docker", "inspect", "-f", networks, self._container(LOG_SERVER)).split()
        if not addresses:
            raise LabError(f"{LOG_SERVER} is being started again")
        return f"redis://{addresses[0]}:6379/0"

    def kill(self, process: str) -> None:
        """See ``Target``. What Docker was told to kill, nobody starts again."""
        container = self._container(process)
        self._run("docker", "kill", container)
        self._run("docker", "start", container)

    def stop(self, process: str) -> Callable[[], None]:
        """See ``Target``."""
        container = self._container(process)
        self._run("docker", "pause", container)

        def go_on() -> None:
            with suppress(LabError):
                self._run("docker", "unpause", container)

        return go_on

    def start_what_ended(self) -> None:
        """See ``Target``."""
        for process in self.processes:
            self._run("docker", "start", self._container(process))

    def _container(self, process: str) -> str:
        return self._compose("ps", "--all", "-q", process).strip()

    def _compose(self, *arguments: str) -> str:
        return self._run("docker", "compose", *arguments)

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMPOSE_SECONDS)
        except FileNotFoundError:
            raise LabError("there is no docker on the PATH") from None
        except subprocess.TimeoutExpired:
            raise LabError(f"{' '.join(command)} did not end in time") from None
        if done.returncode != 0:
            raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout
