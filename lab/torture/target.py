"""The lab that a torture run breaks: a temporary one on this machine, or the stack in containers."""

import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial

from lab.errors import LabError
from lab.local import layout, log_status, state
from lab.local.layout import LOG_SERVER, NAMESPACE, Options
from lab.local.supervisor import Lab

_COMPOSE_SECONDS = 60.0


def native_processes(replicas: int, *, ha: bool = False) -> list[str]:
    options = Options(replicas=replicas, ha=ha)
    nodes = [place.node_id for place in layout.places(options) if place.role != "worker"]
    return sorted([*nodes, *(place.name for place in layout.log_places(options))])


class NativeTarget:
    """A lab on this machine. Methods raise ``LabError`` for actions that are currently impossible."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.log_moves = lab.options.ha  # whether another log server can take over
        self.client_url = lab.client_url
        self.primary_url = lab.primary_url
        self.processes = native_processes(lab.options.replicas, ha=lab.options.ha)

    def redis_url(self) -> str:
        return self._lab.redis_url

    def kill(self, process: str) -> None:
        self._signal(self._pid(process), signal.SIGKILL)

    def stop(self, process: str) -> Callable[[], object]:
        """Suspend a process, and return the function that resumes it."""
        pid = self._pid(process)
        self._signal(pid, signal.SIGSTOP)
        return partial(self._signal, pid, signal.SIGCONT)

    def restart_ended(self) -> None: ...  # the supervisor does

    def log_is_settled(self) -> bool:
        """Whether one log server is master, and the others follow it."""
        running = state.require(self._lab.data_dir)
        master = log_status.master(running.redis_url)
        servers = [node for node in running.nodes if node.role in {"log", "sentinel"}]
        return all(log_status.look(node, running, master)["health"] == log_status.OK for node in servers)

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


class ComposeTarget:
    client_url = "http://127.0.0.1:8003"
    primary_url = "http://127.0.0.1:8000"
    log_moves = False

    def __init__(self) -> None:
        running = set(_docker("compose", "ps", "--services", "--status", "running").split())
        nodes = {f"{NAMESPACE}-primary", f"{NAMESPACE}-client", LOG_SERVER}
        services = _docker("compose", "config", "--services").split()
        nodes |= {service for service in services if service.startswith(f"{NAMESPACE}-replica")}
        if missing := ", ".join(sorted(nodes - running)):
            raise LabError(f"{missing} does not run; `docker compose up --build -d` starts the stack")
        self.processes = sorted(nodes)

    def redis_url(self) -> str:
        """Return the container's address: its port is not published, but a Linux host can reach it."""
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        addresses = _docker("inspect", "-f", networks, _container(LOG_SERVER)).split()
        if not addresses:
            raise LabError(f"{LOG_SERVER} is restarting")
        return f"redis://{addresses[0]}:6379/0"

    def kill(self, process: str) -> None:
        """Kill and start the container; Docker does not restart a container killed on request."""
        container = _container(process)
        _docker("kill", container)
        _docker("start", container)

    def stop(self, process: str) -> Callable[[], object]:
        container = _container(process)
        _docker("pause", container)
        return partial(_docker, "unpause", container)

    def restart_ended(self) -> None:
        for process in self.processes:
            _docker("start", _container(process))

    def log_is_settled(self) -> bool:
        return True  # there is one log server


Target = NativeTarget | ComposeTarget


def _container(process: str) -> str:
    return _docker("compose", "ps", "--all", "-q", process).strip()


def _docker(*arguments: str) -> str:
    command = ("docker", *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMPOSE_SECONDS)
    except FileNotFoundError:
        raise LabError("no docker on the PATH") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command)} did not end within {_COMPOSE_SECONDS:g} s") from None
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
