"""The configuration of a node: the only code that reads the environment, and the table of its variables."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from broker import address
from broker.delay.models import DELAY_MS_MAX

Role = Literal["primary", "replica", "client", "worker"]
ROLES: tuple[Role, ...] = get_args(Role)
_PORTS: dict[Role, int] = {"primary": 8000, "replica": 8001, "client": 8003, "worker": 8078}
Parse = Callable[[str], Any]  # raises ``ValueError`` with what is allowed
_ORIGIN = r"\s*https?://[A-Za-z0-9.-]+(?::[0-9]+)?\s*"


class ConfigError(ValueError):
    """Raised for an invalid value; the message has the variable, the value and what is allowed."""


@dataclass(frozen=True)
class NodeConfig:
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
        """The node's URL with its id as host, for display."""
        return f"http://{self.node_id}:{self.port}"


@dataclass(frozen=True)
class PrimaryConfig(NodeConfig):
    log_copies: int
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
    queue_url: str
    data_dir: Path


@dataclass(frozen=True)
class WorkerConfig(NodeConfig):
    queue_url: str
    client_url: str


_CONFIGS = {"primary": PrimaryConfig, "replica": ReplicaConfig, "client": ClientConfig, "worker": WorkerConfig}


def _checked(is_valid: Callable[[str], object], allowed: str, convert: Parse = str) -> Parse:
    def parse(text: str) -> Any:
        with suppress(ValueError):
            if is_valid(text):
                return convert(text)
        raise ValueError(f"must be {allowed}")

    return parse


def _text(pattern: str, allowed: str, convert: Parse = str) -> Parse:
    return _checked(re.compile(pattern).fullmatch, allowed, convert)


def _number(low: float, high: float) -> Parse:
    return _checked(lambda text: low <= float(text) <= high, f"a number from {low:g} to {high:g}", float)


def _integer(low: int, high: int) -> Parse:
    def is_valid(text: str) -> bool:
        return re.fullmatch(r"[0-9]{1,15}", text) is not None and low <= int(text) <= high

    return _checked(is_valid, f"a whole number from {low} to {high}", int)


def _url(*schemes: str) -> Parse:
    def is_valid(text: str) -> bool:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname or parts.path) and (parts.port or 1) > 0

    return _checked(is_valid, f"a URL that starts with {' or '.join(schemes)}://", lambda text: text.rstrip("/"))


def _redis(text: str) -> str:
    address.parse(text)
    return text


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def _default_id(found: Mapping[str, Any]) -> str:
    return f"{found['namespace'].strip('{}')}-{'replica1' if found['role'] == 'replica' else found['role']}"


def _default_dir(found: Mapping[str, Any]) -> str:
    return f".lab/{'replicas/' if found['role'] == 'replica' else ''}{found['node_id']}"


def _default_url(found: Mapping[str, Any]) -> str:
    """A URL that others can connect to; a node on all addresses is assumed to be reachable by its id."""
    host = found["host"]
    with suppress(ValueError):  # a name
        address = ipaddress.ip_address(host)
        host = found["node_id"] if address.is_unspecified else f"[{host}]" if address.version == 6 else host
    return f"http://{host}:{found['port']}"


class Variable(NamedTuple):
    """A row of ``docs/configuration.md``. A ``default`` can depend on the fields before; ``shown`` describes it."""

    name: str
    field: str
    parse: Parse
    default: str | Callable[[Mapping[str, Any]], str]
    meaning: str
    roles: tuple[Role, ...] = ROLES
    shown: str = ""


_id = _text(r"[a-z0-9][a-z0-9-]{0,62}", "letters, digits and dashes, lower case")
_namespace = _text(r"\{?[a-z0-9]{1,32}\}?", "1 to 32 letters and digits, lower case")
_host = _text(r"[A-Za-z0-9_.:-]{1,255}", "an address to listen on, such as 127.0.0.1")
_web = _url("http", "https")
_delay = _number(0, DELAY_MS_MAX)
_PRIMARY: tuple[Role, ...] = ("primary",)
_REPLICA: tuple[Role, ...] = ("replica",)
# fmt: off
_origins = _text(f"(?:{_ORIGIN}(?:,{_ORIGIN})*)?",
                 "origins such as https://lab.example:8443, without a path, separated by commas", _names)
_unset = _text("(?:parentbased_)?(?:always_on|always_off|traceidratio)|",
               "always_on, always_off or traceidratio, optionally prefixed with parentbased_", lambda text: not text)
VARIABLES = (
    Variable("LAB_NAMESPACE", "namespace", _namespace, "lab14",
             "prefix of every key in Redis; `lab up` always uses the default"),
    Variable("LAB_NODE_ID", "node_id", _id, _default_id,
             "the node's name, for example `lab14-replica1`", shown="by role"),
    Variable("LAB_HOST", "host", _host, "127.0.0.1", "address that the node listens on"),
    Variable("LAB_PORT", "port", _integer(1, 65535), lambda found: str(_PORTS[found["role"]]),
             "port that the node listens on", shown="by role"),
    Variable("LAB_ADVERTISE_URL", "advertise_url", _web, _default_url,
             "URL at which other nodes reach it; a node that listens on all addresses is assumed to be reachable by "
             "its id", shown="from host and port"),
    Variable("LAB_REDIS_URL", "redis_url", _redis, "redis://127.0.0.1:6379/0",
             "URL of the log server, or of Sentinels or a cluster: see [deploy.md](deploy.md#the-log-server)"),
    Variable("LAB_QUEUE_URL", "queue_url", _redis, lambda found: found["redis_url"],
             "URL of the server that has the queue of experiments; required if the log is on a cluster, where RQ does "
             "not run", ("client", "worker"), "`LAB_REDIS_URL`"),
    Variable("LAB_LOG_COPIES", "log_copies", _integer(0, 100), "0",
             "a write is acknowledged once this many replicas of the log server have it; `?copies=` overrides it for "
             "one write", _PRIMARY),
    Variable("LAB_PRIMARY_URL", "primary_url", _web, "http://127.0.0.1:8000",
             "URL of the primary, for the other nodes"),
    Variable("LAB_CLIENT_URL", "client_url", _web, "http://127.0.0.1:8003", "URL of the client", ("worker",)),
    Variable("LAB_DATA_DIR", "data_dir", Path, _default_dir,
             "directory of a replica's store; of the client's experiments", ("replica", "client"),
             shown="`.lab/replicas/<id>`, `.lab/<id>`"),
    Variable("LAB_DELAY_MS", "delay_ms", _delay, "500",
             "delay of a new replica; later the live setting applies", _REPLICA),
    Variable("LAB_ACK_DELAY_MS", "ack_delay_ms", _delay, "0",
             "acknowledgement delay of a new replica; later the live setting applies", _REPLICA),
    Variable("LAB_LINE_MAX_ENTRIES", "line_max_entries", _integer(1, 1_000_000), "10000",
             "maximum number of entries in the delay line; further entries stay in the stream", _REPLICA),
    Variable("LAB_LINE_MAX_BYTES", "line_max_bytes", _integer(1024, 2**34), str(64 * 2**20),
             "maximum size of the delay line; further entries stay in the stream", _REPLICA, "64 MiB"),
    Variable("LAB_LOG_KEEP", "log_keep", _integer(0, 10_000_000), "10000",
             "entries kept in the log even if every live replica has them", _PRIMARY),
    Variable("LAB_LOG_MAX", "log_max", _integer(1, 100_000_000), "1000000",
             "maximum number of entries in the log; a replica that was away longer installs a snapshot", _PRIMARY),
    Variable("LAB_LOG_MAX_BYTES", "log_max_bytes", _integer(2**20, 2**40), str(256 * 2**20),
             "maximum memory of the log; less if the log server's `maxmemory` leaves less", _PRIMARY, "256 MiB"),
    Variable("LAB_THREADS", "threads", _integer(4, 4096), "512",
             "requests in progress per node, in addition to 8 reserved for `/health`, `/metrics`, `/faults` and "
             "`/admin`; at most seven eighths can wait"),
    Variable("LAB_ALLOWED_HOSTS", "allowed_hosts", _names, "", "additional host names to accept, comma-separated"),
    Variable("LAB_ALLOWED_ORIGINS", "allowed_origins", _origins, "",
             "additional origins whose pages can send requests (`https://name-8003.app.github.dev`), comma-separated: "
             "for a proxy that forwards a port and changes the host name, as Codespaces does. The console needs an "
             "origin of its own and does not work below a path prefix"),
    Variable("LAB_ADMIN_TOKEN", "admin_token", lambda text: text or None, "",
             "if set, every endpoint that changes the lab, and those of delays and faults, require it as "
             "`Authorization: Bearer TOKEN`; `/openapi.json` marks them. Use a long random value, the same on every "
             "node"),
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "tracing", bool, "",
             "if set, traces are recorded and exported there by OTLP over HTTP"),
    Variable("OTEL_TRACES_SAMPLER", "traces_bounded", _unset, "",
             "OpenTelemetry sampler for traces that start at a node: `parentbased_always_on` records all of them",
             shown="at most 200 per second"),
)
# fmt: on


def load(role: Role, values: Mapping[str, str]) -> NodeConfig:
    """Read the configuration of a node of this role. Raises ``ConfigError``."""
    found: dict[str, Any] = {"role": role}
    for variable in VARIABLES:
        if role not in variable.roles:
            continue
        default = variable.default if isinstance(variable.default, str) else variable.default(found)
        text = values.get(variable.name) or default
        try:
            found[variable.field] = variable.parse(text)
        except ValueError as error:
            shown = address.without_password(text)
            raise ConfigError(f"{variable.name} is {shown!r}, but {error}") from None
    found["namespace"] = address.parse(found["redis_url"]).namespace(found["namespace"])
    if role == "primary" and found["log_max"] < found["log_keep"]:
        raise ConfigError(f"LAB_LOG_MAX is {found['log_max']}, but must be at least LAB_LOG_KEEP, {found['log_keep']}")
    config: NodeConfig = _CONFIGS[role](**found)
    return config
