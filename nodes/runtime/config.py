"""The configuration of a node: the one place that reads the environment."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from broker.delay import DELAY_MS_MAX

Role = Literal["primary", "replica", "client", "worker"]
_DEFAULT_PORTS: dict[Role, int] = {"primary": 8000, "replica": 8001, "client": 8003, "worker": 8078}


_SAMPLERS = "(?:parentbased_)?(?:always_on|always_off|traceidratio)|"
_SAMPLERS_ALLOWED = "always_on, always_off or traceidratio, with parentbased_ before it or not"

_ORIGIN = r"\s*https?://[A-Za-z0-9.-]+(?::[0-9]+)?\s*"
_ORIGINS = f"(?:{_ORIGIN}(?:,{_ORIGIN})*)?"
_ORIGINS_ALLOWED = "origins such as https://lab.example:8443, without a path, separated by commas"


class ConfigError(ValueError):
    """Raised for a bad value; the message names the variable, the value and what is allowed."""


@dataclass(frozen=True)
class NodeConfig:
    """What every node needs to know."""

    role: Role
    node_id: str
    namespace: str
    host: str
    port: int
    advertise_url: str
    redis_url: str
    primary_url: str
    allowed_hosts: frozenset[str]
    allowed_origins: frozenset[str]
    admin_token: str | None
    threads: int
    tracing: bool
    traces_bounded: bool

    @property
    def name_url(self) -> str:
        """The node's URL as people name it, with its id for a host."""
        return f"http://{self.node_id}:{self.port}"


@dataclass(frozen=True)
class PrimaryConfig(NodeConfig):
    """How much of the log the primary keeps: entries always, entries at the most, and bytes at the most."""

    log_keep: int
    log_max: int
    log_max_bytes: int


@dataclass(frozen=True)
class ReplicaConfig(NodeConfig):
    """Where a replica stores, how late it starts out, and what its delay line may hold."""

    data_dir: Path
    delay_ms: float
    ack_delay_ms: float
    line_max_entries: int
    line_max_bytes: int


@dataclass(frozen=True)
class ClientConfig(NodeConfig):
    """Where the client keeps experiments."""

    data_dir: Path


@dataclass(frozen=True)
class WorkerConfig(NodeConfig):
    """Where the worker finds the client that it measures through."""

    client_url: str


class _Environment:
    """Reads one variable at a time, and refuses with a sentence."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str, default: str, pattern: str, allowed: str) -> str:
        value = self._values.get(name) or default
        if re.fullmatch(pattern, value) is None:
            shown = re.sub("//.*@", "//", value)  # never a password
            raise ConfigError(f"{name} is {shown!r}, but has to be {allowed}")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        text = self._values.get(name) or str(default)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ConfigError(f"{name} is {text!r}, but has to be a number from {low:g} to {high:g}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self._values.get(name) or str(default)
        if re.fullmatch(r"[0-9]{1,15}", text) is None or not low <= int(text) <= high:
            raise ConfigError(f"{name} is {text!r}, but has to be a whole number from {low} to {high}")
        return int(text)

    def url(self, name: str, default: str, schemes: tuple[str, ...]) -> str:
        value = self._values.get(name) or default
        try:
            parts = urlsplit(value)
            valid = parts.scheme in schemes and bool(parts.hostname or parts.path) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError(f"{name} is {value!r}, but has to be a URL that starts with {' or '.join(schemes)}://")
        return value.rstrip("/")


def load(role: Role, values: Mapping[str, str]) -> NodeConfig:
    """Read the configuration of a node of this role. Raises ``ConfigError``."""
    env = _Environment(values)
    namespace = env.text("LAB_NAMESPACE", "lab14", r"\{?[a-z0-9]{1,32}\}?", "1 to 32 letters and digits, lower case")
    name = namespace.strip("{}")
    redis_url = env.url("LAB_REDIS_URL", "redis://127.0.0.1:6379/0", ("redis", "rediss", "unix"))
    from broker.connection import require_options  # not above: the supervisor reads this module, and needs no redis

    try:
        require_options(redis_url)
    except ValueError as error:
        raise ConfigError(f"LAB_REDIS_URL is not usable: {error}") from None
    default_id = f"{name}-replica1" if role == "replica" else f"{name}-{role}"
    node_id = env.text("LAB_NODE_ID", default_id, r"[a-z0-9][a-z0-9-]{0,62}", "letters, digits and dashes, lower case")
    host = env.text("LAB_HOST", "127.0.0.1", r"[A-Za-z0-9_.:-]{1,255}", "an address to listen on, such as 127.0.0.1")
    port = env.integer("LAB_PORT", _DEFAULT_PORTS[role], 1, 65535)
    common = NodeConfig(
        role=role,
        node_id=node_id,
        namespace=namespace,
        host=host,
        port=port,
        advertise_url=env.url("LAB_ADVERTISE_URL", f"http://{_reachable(host, node_id)}:{port}", ("http", "https")),
        redis_url=redis_url,
        primary_url=env.url("LAB_PRIMARY_URL", "http://127.0.0.1:8000", ("http", "https")),
        allowed_hosts=frozenset(_names(values.get("LAB_ALLOWED_HOSTS", ""))),
        allowed_origins=frozenset(_names(env.text("LAB_ALLOWED_ORIGINS", "", _ORIGINS, _ORIGINS_ALLOWED))),
        admin_token=values.get("LAB_ADMIN_TOKEN") or None,
        threads=env.integer("LAB_THREADS", 512, 4, 4096),
        tracing=bool(values.get("OTEL_EXPORTER_OTLP_ENDPOINT")),
        traces_bounded=not env.text("OTEL_TRACES_SAMPLER", "", _SAMPLERS, _SAMPLERS_ALLOWED),
    )
    if role == "primary":
        keep = env.integer("LAB_LOG_KEEP", 10_000, 0, 10_000_000)
        return PrimaryConfig(
            **vars(common),
            log_keep=keep,
            log_max=env.integer("LAB_LOG_MAX", 1_000_000, max(1, keep), 100_000_000),
            log_max_bytes=env.integer("LAB_LOG_MAX_BYTES", 256 * 2**20, 2**20, 2**40),
        )
    if role == "replica":
        return ReplicaConfig(
            **vars(common),
            data_dir=Path(values.get("LAB_DATA_DIR") or f".lab/replicas/{node_id}"),
            delay_ms=env.number("LAB_DELAY_MS", 500, 0, DELAY_MS_MAX),
            ack_delay_ms=env.number("LAB_ACK_DELAY_MS", 0, 0, DELAY_MS_MAX),
            line_max_entries=env.integer("LAB_LINE_MAX_ENTRIES", 10_000, 1, 1_000_000),
            line_max_bytes=env.integer("LAB_LINE_MAX_BYTES", 64 * 2**20, 1024, 2**34),
        )
    if role == "worker":
        return WorkerConfig(
            **vars(common), client_url=env.url("LAB_CLIENT_URL", "http://127.0.0.1:8003", ("http", "https"))
        )
    return ClientConfig(**vars(common), data_dir=Path(values.get("LAB_DATA_DIR") or f".lab/{node_id}"))


def _reachable(host: str, node_id: str) -> str:
    """A host that others can connect to: a node that listens on all addresses is taken to be known by its id."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return node_id
    return f"[{host}]" if address.version == 6 else host


def _names(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",") if name.strip()]
