"""Names and ports of a local lab's processes."""

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from lab.errors import LabError
from lab.local.processes import RESTART_PAUSES_SECONDS
from nodes.runtime.config import Role

NAMESPACE = "lab14"
LOG_SERVER = f"{NAMESPACE}-redis"
REPLICAS_MAX = 20
BLOCK = 80  # ports of a lab, starting at its base port
OTHER_PORTS = "stop the process that listens there (`lab down` for a lab), or choose another --base-port"
_CLIENT = 3
_WORKER = 78
_LOG_SERVERS = (79, 77, 76)
_SENTINELS = (75, 74, 73)
_DELAYS_MS = {1: 500, 2: 1500}  # by the replica's number
_FURTHER_DELAY_MS = 1000


@dataclass(frozen=True)
class Options:
    """``redis_url``: an existing log server to use. ``ha``: three log servers and three Sentinels, not one server.

    ``environment``: additional variables for the nodes.
    """

    data_dir: Path = Path(".lab")
    base_port: int = 8000
    host: str = "127.0.0.1"
    replicas: int = 2
    redis_url: str | None = None
    log_server: Literal["valkey", "redis-server"] = "valkey"
    fsync: Literal["everysec", "always"] = "everysec"
    ha: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    restart_pauses_seconds: Sequence[float] = RESTART_PAUSES_SECONDS


@dataclass(frozen=True)
class Place:
    """A node of the lab, and its address. ``delay_ms``: a replica's initial delay."""

    node_id: str
    role: Role
    port: int
    url: str
    delay_ms: int = 0


@dataclass(frozen=True)
class LogPlace:
    """A log server or a Sentinel of the lab, and its address. ``subdirectory``: of a server's append-only file."""

    name: str
    role: Literal["log", "sentinel"]
    port: int
    subdirectory: str = ""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


def places(options: Options) -> list[Place]:
    """The nodes in display order: primary, replicas, client, worker."""
    host = "127.0.0.1" if options.host in {"0.0.0.0", "::"} else options.host
    address = f"[{host}]" if ":" in host else host

    def place(name: str, role: Role, offset: int, delay_ms: int = 0) -> Place:
        port = options.base_port + offset
        return Place(f"{NAMESPACE}-{name}", role, port, f"http://{address}:{port}", delay_ms)

    replicas = [
        # The client's port always leaves room for two replicas.
        place(f"replica{n}", "replica", n if n < _CLIENT else n + 1, _DELAYS_MS.get(n, _FURTHER_DELAY_MS))
        for n in range(1, options.replicas + 1)
    ]
    client, worker = place("client", "client", _CLIENT), place("worker", "worker", _WORKER)
    return [place("primary", "primary", 0), *replicas, client, worker]


def log_places(options: Options) -> list[LogPlace]:
    """The log servers, then the Sentinels that the lab starts; none with a ``redis_url``."""
    if options.redis_url is not None:
        return []
    base = options.base_port
    if not options.ha:
        return [LogPlace(LOG_SERVER, "log", base + _LOG_SERVERS[0], "log")]
    # The first server takes over the log of a lab with one server.
    subdirectories = ("log", "log2", "log3")
    servers = [
        LogPlace(f"{LOG_SERVER}{n}", "log", base + offset, subdirectory)
        for n, offset, subdirectory in zip((1, 2, 3), _LOG_SERVERS, subdirectories, strict=True)
    ]
    return servers + [
        LogPlace(f"{NAMESPACE}-sentinel{n}", "sentinel", base + offset) for n, offset in enumerate(_SENTINELS, 1)
    ]


def redis_url(options: Options, password: str) -> str:
    """The URL of the log: the given one, or that of the servers that the lab starts, which require this password."""
    if options.redis_url is not None:
        return options.redis_url
    places = log_places(options)
    hosts = ",".join(f"127.0.0.1:{place.port}" for place in places if place.role == "sentinel")
    if not hosts:
        return f"redis://default:{password}@127.0.0.1:{places[0].port}/0"
    return f"redis+sentinel://default:{password}@{hosts}/{NAMESPACE}/0?sentinel_password={password}"


def require_free_ports(options: Options) -> None:
    if taken := taken_ports(options):
        which = f"port {taken[0]} is" if len(taken) == 1 else f"ports {', '.join(map(str, taken))} are"
        raise LabError(f"{which} in use; {OTHER_PORTS}")


def taken_ports(options: Options) -> list[int]:
    """The ports of the lab that any process, including this lab, uses."""
    ports = [place.port for place in places(options)] + [place.port for place in log_places(options)]
    return [port for port in ports if not _is_free(options.host, port)]


def free_base_port(random: Random, host: str = "127.0.0.1", preferred: Iterable[int] = ()) -> int:
    """A base port whose whole block is free. Raises ``LabError`` when none is found in 100 tries.

    It is below the ports of outgoing connections, which could otherwise take the port of a restarting node.
    """
    for base in (*preferred, *(random.randrange(10_000, 32_000, 100) for _ in range(100))):
        if all(_is_free(host, base + offset) for offset in range(BLOCK)):
            return base
    raise LabError("no block of free ports was found; choose a --base-port")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
