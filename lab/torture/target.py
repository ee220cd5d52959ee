"""The lab that a torture run breaks: a temporary one on this machine, or the stack in containers."""

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
    """A running lab. Methods raise ``LabError`` if something cannot be done at the moment."""

    client_url: str
    primary_url: str
    processes: list[str]

    def redis_url(self) -> str:
        """Return the present URL of the log server."""

    def kill(self, process: str) -> None:
        """Kill a process, which is then restarted."""

    def stop(self, process: str) -> Callable[[], None]:
        """Suspend a process, and return the function that resumes it."""

    def restart_ended(self) -> None:
        """Restart the processes that have ended and that nothing else restarts."""


def native_processes(replicas: int) -> list[str]:
    """Return the processes that can be killed in a lab on this machine."""
    nodes = [place.node_id for place in layout.places(Options(replicas=replicas)) if place.role != "worker"]
    return sorted([*nodes, LOG_SERVER])


class NativeTarget(Target):
    """A lab on this machine; its supervisor restarts what ends."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.client_url = lab.client_url
        self.primary_url = lab.primary_url
        self.processes = native_processes(lab.options.replicas)

    def redis_url(self) -> str:
        return self._lab.redis_url

    def kill(self, process: str) -> None:
        self._signal(self._pid(process), signal.SIGKILL)

    def stop(self, process: str) -> Callable[[], None]:
        pid = self._pid(process)
        self._signal(pid, signal.SIGSTOP)

        def resume() -> None:
            with suppress(LabError):  # it has been killed meanwhile
                self._signal(pid, signal.SIGCONT)

        return resume

    def restart_ended(self) -> None: ...

    def _pid(self, process: str) -> int:
        pid = self._lab.pids.get(process)
        if pid is None:
            raise LabError(f"{process} is restarting")
        return pid

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            os.killpg(pid, number)  # a node is a master and its worker
        except ProcessLookupError:
            raise LabError("it has just ended") from None


class ComposeTarget(Target):
    """The running stack of docker-compose.yml."""

    client_url = "http://127.0.0.1:8003"
    primary_url = "http://127.0.0.1:8000"

    def __init__(self) -> None:
        """Raise ``LabError`` if the stack does not run."""
        running = set(_compose("ps", "--services", "--status", "running").split())
        nodes = {f"{NAMESPACE}-primary", f"{NAMESPACE}-client", LOG_SERVER}
        nodes |= {one for one in _compose("config", "--services").split() if one.startswith(f"{NAMESPACE}-replica")}
        if missing := ", ".join(sorted(nodes - running)):
            raise LabError(f"{missing} does not run; `docker compose up --build -d` starts the stack")
        self.processes = sorted(nodes)

    def redis_url(self) -> str:
        """Return the container's address: its port is not published, but a Linux host can reach it."""
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        addresses = _run("docker", "inspect", "-f", networks, _container(LOG_SERVER)).split()
        if not addresses:
            raise LabError(f"{LOG_SERVER} is restarting")
        return f"redis://{addresses[0]}:6379/0"

    def kill(self, process: str) -> None:
        """Kill and start the container; Docker does not restart what it was asked to kill."""
        container = _container(process)
        _run("docker", "kill", container)
        _run("docker", "start", container)

    def stop(self, process: str) -> Callable[[], None]:
        container = _container(process)
        _run("docker", "pause", container)

        def resume() -> None:
            with suppress(LabError):
                _run("docker", "unpause", container)

        return resume

    def restart_ended(self) -> None:
        for process in self.processes:
            _run("docker", "start", _container(process))


def _container(process: str) -> str:
    return _compose("ps", "--all", "-q", process).strip()


def _compose(*arguments: str) -> str:
    return _run("docker", "compose", *arguments)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMPOSE_SECONDS)
    except FileNotFoundError:
        raise LabError("no docker on the PATH") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command)} did not end within {_COMPOSE_SECONDS:g} s") from None
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
