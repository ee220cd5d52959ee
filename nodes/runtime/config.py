"""The configuration of a node: the one place that reads the environment, and its one table of variables."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from broker.delay import DELAY_MS_MAX
from broker.url import require_options

Role = Literal["primary", "replica", "client", "worker"]
ROLES: tuple[Role, ...] = get_args(Role)
_PORTS: dict[Role, int] = {"primary": 8000, "replica": 8001, "client": 8003, "worker": 8078}
_SAMPLERS = "(?:parentbased_)?(?:always_on|always_off|traceidratio)|"
_ORIGIN = r"\s*https?://[A-Za-z0-9.-]+(?::[0-9]+)?\s*"


class ConfigError(ValueError):
    """Raised for an invalid value; the message has the variable, the value and what is allowed."""


@dataclass(frozen=True)
class NodeConfig:
    """The configuration of any node."""

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
        """The node's URL with its id as host, for people."""
        return f"http://{self.node_id}:{self.port}"


@dataclass(frozen=True)
class PrimaryConfig(NodeConfig):
    log_keep: int
    log_max: int
    log_max_bytes: int


@dataclass(frozen=True)
class ReplicaConfig(NodeConfig):
    data_dir: Path
    delay_ms: float
    ack_delay_ms: float
    line_max_entries: int
    line_max_bytes: int


@dataclass(frozen=True)
class ClientConfig(NodeConfig):
    data_dir: Path


@dataclass(frozen=True)
class WorkerConfig(NodeConfig):
    client_url: str


_CONFIGS = {"primary": PrimaryConfig, "replica": ReplicaConfig, "client": ClientConfig, "worker": WorkerConfig}
Parser = Callable[[str], Any]


def _text(pattern: str, allowed: str) -> Parser:
    def parse(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(allowed)
        return text

    return parse


def _number(low: float, high: float) -> Parser:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return parse


def _integer(low: int, high: int) -> Parser:
    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,15}", text) is None or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _url(*schemes: str) -> Parser:
    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
            valid = parts.scheme in schemes and bool(parts.hostname or parts.path) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(f"a URL that starts with {' or '.join(schemes)}://")
        return text.rstrip("/")

    return parse


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def _origins(text: str) -> frozenset[str]:
    if re.fullmatch(f"(?:{_ORIGIN}(?:,{_ORIGIN})*)?", text) is None:
        raise ValueError("origins such as https://lab.example:8443, without a path, separated by commas")
    return _names(text)


def _default_id(found: Mapping[str, Any]) -> str:
    name = found["namespace"].strip("{}")
    return f"{name}-replica1" if found["role"] == "replica" else f"{name}-{found['role']}"


def _default_dir(found: Mapping[str, Any]) -> str:
    return f".lab/replicas/{found['node_id']}" if found["role"] == "replica" else f".lab/{found['node_id']}"


def _default_url(found: Mapping[str, Any]) -> str:
    """A URL that others can connect to: on all addresses, the node is assumed to be reachable by its id."""
    host = found["host"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        host = found["node_id"] if address.is_unspecified else f"[{host}]" if address.version == 6 else host
    return f"http://{host}:{found['port']}"


class Variable(NamedTuple):
    """An environment variable, read into a field of a node's configuration; a row of ``docs/configuration.md``.

    ``parse`` raises ``ValueError`` with what is allowed. ``default``: a text, or what makes one of the fields that the
    rows above have; ``shown`` describes it.
    """

    name: str
    field: str
    parse: Parser
    default: str | Callable[[Mapping[str, Any]], str]
    shown: str
    meaning: str
    roles: tuple[Role, ...] = ROLES

    def read(self, values: Mapping[str, str], found: Mapping[str, Any]) -> Any:
        """Return the value. Raises ``ConfigError``."""
        default = self.default if isinstance(self.default, str) else self.default(found)
        text = values.get(self.name) or default
        try:
            return self.parse(text)
        except ValueError as error:
            shown = re.sub("//.*@", "//", text)  # never a password
            raise ConfigError(f"{self.name} is {shown!r}, but must be {error}") from None


_ADMIN_MEANING = (
    "when set, every endpoint that changes the lab, and those of delays and faults, require it as "
    "`Authorization: Bearer TOKEN`; `/openapi.json` names them. Long, random, and the same on every node"
)
_ORIGINS_MEANING = (
    "further origins whose pages may send requests (`https://name-8003.app.github.dev`), separated by commas: for a "
    "proxy that forwards a port and changes the host name, as Codespaces does. The console needs an origin of its own "
    "and does not work below a path prefix"
)
VARIABLES = (
    Variable("LAB_NAMESPACE", "namespace", _text(r"\{?[a-z0-9]{1,32}\}?", "1 to 32 letters and digits, lower case"),
             "lab14", "`lab14`", "first part of every key in Redis; `lab up` always uses the default"),
    Variable("LAB_NODE_ID", "node_id", _text(r"[a-z0-9][a-z0-9-]{0,62}", "letters, digits and dashes, lower case"),
             _default_id, "by role", "the node's name, `lab14-replica1` for example"),
    Variable("LAB_HOST", "host", _text(r"[A-Za-z0-9_.:-]{1,255}", "an address to listen on, such as 127.0.0.1"),
             "127.0.0.1", "`127.0.0.1`", "address on which the node listens"),
    Variable("LAB_PORT", "port", _integer(1, 65535), lambda found: str(_PORTS[found["role"]]),
             ", ".join(map(str, _PORTS.values())), "port on which the node listens"),
    Variable("LAB_ADVERTISE_URL", "advertise_url", _url("http", "https"), _default_url, "from host and port",
             "where other nodes reach it; a node that listens on all addresses is assumed to be reachable by its id"),
    Variable("LAB_REDIS_URL", "redis_url", _url("redis", "rediss", "unix"), "redis://127.0.0.1:6379/0",
             "`redis://127.0.0.1:6379/0`",
             "the log server; of a URL's options only `db`, `client_name` and those of TLS are allowed"),
    Variable("LAB_PRIMARY_URL", "primary_url", _url("http", "https"), "http://127.0.0.1:8000",
             "`http://127.0.0.1:8000`", "the primary, for the others"),
    Variable("LAB_CLIENT_URL", "client_url", _url("http", "https"), "http://127.0.0.1:8003", "`http://127.0.0.1:8003`",
             "the client, for the worker", ("worker",)),
    Variable("LAB_DATA_DIR", "data_dir", Path, _default_dir, "`.lab/replicas/<id>`, `.lab/<id>`",
             "directory of a replica's store; of the client's experiments", ("replica", "client")),
    Variable("LAB_DELAY_MS", "delay_ms", _number(0, DELAY_MS_MAX), "500", "500",
             "a new replica's delay; later the live setting counts", ("replica",)),
    Variable("LAB_ACK_DELAY_MS", "ack_delay_ms", _number(0, DELAY_MS_MAX), "0", "0",
             "a new replica's delay of acknowledgements", ("replica",)),
    Variable("LAB_LINE_MAX_ENTRIES", "line_max_entries", _integer(1, 1_000_000), "10000", "10000",
             "entries that the delay line holds; the rest stays in the stream", ("replica",)),
    Variable("LAB_LINE_MAX_BYTES", "line_max_bytes", _integer(1024, 2**34), str(64 * 2**20), "64 MiB",
             "bytes that the delay line holds", ("replica",)),
    Variable("LAB_LOG_KEEP", "log_keep", _integer(0, 10_000_000), "10000", "10000",
             "entries that stay in the log although every live replica has them", ("primary",)),
    Variable("LAB_LOG_MAX", "log_max", _integer(1, 100_000_000), "1000000", "1000000",
             "most entries that the log holds; a replica that was away longer takes a snapshot", ("primary",)),
    Variable("LAB_LOG_MAX_BYTES", "log_max_bytes", _integer(2**20, 2**40), str(256 * 2**20), "256 MiB",
             "most memory that the log takes; less if the log server's `maxmemory` leaves less", ("primary",)),
    Variable("LAB_THREADS", "threads", _integer(4, 4096), "512", "512",
             "requests in progress per node, beside 8 of `/health`, `/metrics`, `/faults` and `/admin`; seven eighths "
             "of them may wait"),
    Variable("LAB_ALLOWED_HOSTS", "allowed_hosts", _names, "", "none",
             "further host names to answer to, separated by commas"),
    Variable("LAB_ALLOWED_ORIGINS", "allowed_origins", _origins, "", "none", _ORIGINS_MEANING),
    Variable("LAB_ADMIN_TOKEN", "admin_token", lambda text: text or None, "", "none", _ADMIN_MEANING),
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "tracing", bool, "", "none",
             "when set, traces are recorded and exported there by OTLP over HTTP"),
    Variable("OTEL_TRACES_SAMPLER", "traces_bounded",
             _text(_SAMPLERS, "always_on, always_off or traceidratio, with parentbased_ before it or not"), "",
             "at most 200 a second",
             "which of the traces that start at a node are recorded, in OpenTelemetry's words: `parentbased_always_on` "
             "for every one"),
)  # fmt: skip


def load(role: Role, values: Mapping[str, str]) -> NodeConfig:
    """Read the configuration of a node of this role. Raises ``ConfigError``."""
    found: dict[str, Any] = {"role": role}
    for variable in VARIABLES:
        if role in variable.roles:
            found[variable.field] = variable.read(values, found)
    found["traces_bounded"] = not found["traces_bounded"]
    try:
        require_options(found["redis_url"])
    except ValueError as error:
        raise ConfigError(f"LAB_REDIS_URL is not usable: {error}") from None
    if role == "primary" and found["log_max"] < found["log_keep"]:
        raise ConfigError(f"LAB_LOG_MAX is {found['log_max']}, but must be at least LAB_LOG_KEEP, {found['log_keep']}")
    config: NodeConfig = _CONFIGS[role](**found)
    return config
