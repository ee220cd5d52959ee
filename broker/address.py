"""Where the log is: the URL of a log server, and the search for the server that takes writes now.

    redis://[user:password@]host[:port][/db], unix://[user:password@]/path          one server
    redis+sentinel://[user:password@]host[:26379][,host…]/master-name[/db]          a master that Sentinels choose
    redis+cluster://[user:password@]host[:port][,host…]                             the owner of the log's slot

``rediss`` instead of ``redis`` is the same over TLS. redis is imported only to ask: it costs a process 11 MB.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from broker import tls

_OPTIONS = ("db", "client_name")
_OPTIONS_TLS = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_OPTIONS_SENTINEL = ("sentinel_username", "sentinel_password")
_PORTS = {"": 6379, "sentinel": 26379, "cluster": 6379}
_ASK_SECONDS = 0.5  # for one Sentinel or node to answer
_FRESH_SECONDS = 0.2  # an answer holds for all connections that are made meanwhile
_HARMLESS = "db|client_name|sentinel_username|ssl_[a-z_]+"  # options to display; a misspelled one can be a password
_SECRETS = (re.compile(rf"(?<=[?&])(?!(?:{_HARMLESS})=)([^=&]*=)[^&]*"), re.compile(r"(?<=://)().*@"))


class Server(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NotLocated(Exception):
    """Raised if no answer names the server that takes writes now."""


class Address:
    """One server at a fixed address. ``url``: as redis-py takes it."""

    moves = False  # whether another server can take over

    def __init__(self, url: str) -> None:
        self.url = url

    def locate(self) -> Server | None:
        """Return the server that takes writes now, ``None`` if it is that of ``url``. Raises ``NotLocated``."""
        return None

    def forget(self) -> None:
        """Search again at the next call of ``locate``."""

    def namespace(self, name: str) -> str:
        """Return the prefix of the keys of the lab ``name``."""
        return name


def ask(url: str, *command: str) -> Any:
    """Return one server's reply. Raises redis-py's ``RedisError``."""
    from redis import ConnectionPool
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    pool: Any = ConnectionPool.from_url(
        url,
        socket_timeout=_ASK_SECONDS,
        socket_connect_timeout=_ASK_SECONDS,
        retry=Retry(NoBackoff(), 0),  # by default redis-py would wait for a dead one for a minute
        protocol=2,
        decode_responses=True,
        driver_info=None,
    )
    pool.connection_class = tls.shared(pool.connection_class)
    try:
        connection = pool.get_connection()
        connection.send_command(*command)
        return connection.read_response()
    finally:
        pool.disconnect()


class Nowhere(Address):
    """The address of a server that is missing, with the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__("redis://")
        self._reason = reason

    def locate(self) -> Server:
        raise NotLocated(self._reason)


class _Moving(Address):
    """A server that another one can replace. Those in ``known`` are asked for it. Thread-safe."""

    moves = True

    def __init__(self, url: str, known: Sequence[Server], url_of: Callable[[Server], str]) -> None:
        """``url_of``: for asking a known one."""
        super().__init__(url)
        self.known, self.url_of = known, url_of
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._fresh_until = 0.0

    def locate(self) -> Server:
        with self._lock:
            if self._server is None or time.monotonic() > self._fresh_until:
                self._server = self._search()
                self._fresh_until = time.monotonic() + _FRESH_SECONDS
            return self._server

    def forget(self) -> None:
        self._fresh_until = 0.0

    def _search(self) -> Server:
        raise NotImplementedError

    def answers(self, servers: Iterable[Server], *command: str) -> Iterator[tuple[Server, Any]]:
        """Yield those that answer with their answers. Raises ``NotLocated`` if none does."""
        from redis.exceptions import RedisError

        troubles, answered = [], False
        for server in servers:
            try:
                answer = ask(self.url_of(server), *command)
            except (RedisError, OSError) as error:
                troubles.append(f"{server}: {error}")
            else:
                answered = True
                yield server, answer
        if not answered:
            raise NotLocated("; ".join(troubles))


class Sentinels(_Moving):
    """The master that Sentinels agree on, by its ``name``."""

    def __init__(
        self,
        url: str,
        known: Sequence[Server],
        url_of: Callable[[Server], str],
        name: str,
        at: Callable[[Server], str],
    ) -> None:
        """``at``: the URL of one log server."""
        super().__init__(url, known, url_of)
        self.name, self.at = name, at
        self._epoch = 0  # of the newest configuration

    def servers(self) -> list[Server]:
        """Return the master and its replicas as the Sentinels know them. Raises ``NotLocated``."""
        for _, replicas in self.answers(self.known, "SENTINEL", "REPLICAS", self.name):
            found = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in replicas)
            return [self.locate(), *(Server(one["ip"], int(one["port"])) for one in found)]
        return []

    def _search(self) -> Server:
        """Ask all, because one that was cut off has an old answer: the newest configuration counts, never an older."""
        try:
            answers = list(self.answers(self.known, "SENTINEL", "MASTER", self.name))
        except NotLocated as error:
            if "No such master" in str(error):
                raise NotLocated(f"the Sentinels know no master named {self.name!r}") from None
            raise NotLocated(f"no Sentinel answers: {error}") from None
        found = [(dict(zip(flat[::2], flat[1::2], strict=True)), sentinel) for sentinel, flat in answers]
        newest, sentinel = max(found, key=lambda one: int(one[0]["config-epoch"]))
        if int(newest["config-epoch"]) < self._epoch:
            raise NotLocated("only Sentinels answer that missed the last failover")
        self._epoch = int(newest["config-epoch"])
        if "failover_in_progress" in newest["flags"]:
            return self._promoted(sentinel)
        return Server(newest["ip"], int(newest["port"]))

    def _promoted(self, sentinel: Server) -> Server:
        """Ask the Sentinel that leads a failover, which until its end still gives the old master's particulars."""
        for _, (host, port) in self.answers([sentinel], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name):
            return Server(host, int(port))
        raise NotLocated("the Sentinels know no master any more")


class Cluster(_Moving):
    """The owner of the slot that has all keys of the lab ``lab``."""

    def __init__(self, url: str, known: Sequence[Server], url_of: Callable[[Server], str], lab: str) -> None:
        super().__init__(url, known, url_of)
        self._lab = lab

    def namespace(self, name: str) -> str:
        return name if "{" in name else f"{{{name}}}"

    def _search(self) -> Server:
        """Ask the last owner and the known nodes, until one names an owner."""
        from redis.crc import key_slot

        slot = key_slot(self.namespace(self._lab).encode())
        nodes = dict.fromkeys([self._server, *self.known] if self._server else self.known)
        try:
            for _, ranges in self.answers(nodes, "CLUSTER", "SLOTS"):
                for first, last, (host, port, *_), *_ in ranges:
                    if first <= slot <= last and host:
                        return Server(host, port)
        except NotLocated as error:
            raise NotLocated(f"no node of the cluster answers: {error}") from None
        raise NotLocated(f"no node of the cluster owns slot {slot}, which has the keys of this lab")


def parse(url: str, namespace: str = "lab14") -> Address:
    """Return the address of the log of the lab ``namespace``. Raises ``ValueError`` that names what is wrong."""
    protocol, kind = _scheme(url)
    parts = urlsplit(url)
    if protocol != "unix" and re.search("@", parts.path + parts.fragment + re.sub("=[^&]*", "", parts.query)):
        raise ValueError("the characters / ? # @ of a user or password must be percent-encoded in it")
    options = _options(parts.query, protocol, kind)
    if protocol == "unix":
        return Address(url)
    login, at, hosts = parts.netloc.rpartition("@")
    servers = [_server(text, _PORTS[kind]) for text in hosts.split(",")]
    name, db = _path(parts.path, kind, options)
    if kind == "" and len(servers) > 1:
        raise ValueError("it has several hosts, which only redis+sentinel:// and redis+cluster:// can have")
    if kind == "":
        return Address(url)

    def one(server: Server, login: str, db: str = "0", *names: str) -> str:
        own = (option for option in parts.query.split("&") if option.startswith(("ssl_", *names)))
        return f"{protocol}://{login}{server}/{db}?{'&'.join(own)}"

    single = one(servers[0], login + at, db, "client_name")
    if kind == "cluster":
        return Cluster(single, servers, lambda server: one(server, login + at), namespace)
    user, password = (quote(options.get(f"sentinel_{part}", ""), safe="") for part in ("username", "password"))
    own = f"{user}:{password}@" if password else ""
    return Sentinels(single, servers, lambda server: one(server, own), name, lambda server: one(server, login + at, db))


def _scheme(url: str) -> tuple[str, str]:
    scheme, separator, _ = url.partition("://")
    protocol, _, kind = scheme.partition("+")
    if not separator or (protocol, kind) not in {("unix", ""), *product(("redis", "rediss"), _PORTS)}:
        raise ValueError(
            "it must start with redis://, unix://, redis+sentinel:// or redis+cluster://, or rediss… for TLS"
        )
    return protocol, kind


def _path(path: str, kind: str, options: dict[str, str]) -> tuple[str, str]:
    """Return the name of the master, and the number of the database."""
    found = [unquote(part) for part in path.split("/") if part]
    name = found.pop(0) if kind == "sentinel" and found else ""
    if kind == "sentinel" and not name:
        raise ValueError("the master's name is missing at its end: redis+sentinel://HOST:26379/MASTER-NAME")
    db = "/".join(found) or options.get("db", "0")
    if not re.fullmatch("[0-9]{1,4}", db):
        raise ValueError(f"its database {db[:100]!r} is not a number")
    if kind == "cluster" and int(db):
        raise ValueError(f"its database is {db}, but a cluster has only database 0")
    return name, db


def without_password(url: str) -> str:
    """Return the URL for display, without anything that may be a password, even if it is no valid URL."""
    for secret in _SECRETS:
        url = secret.sub(r"\1", url)
    return url


def _options(query: str, protocol: str, kind: str) -> dict[str, str]:
    allowed = _OPTIONS + (_OPTIONS_TLS if protocol == "rediss" else ())
    allowed += _OPTIONS_SENTINEL if kind == "sentinel" else ()
    found = parse_qs(query, keep_blank_values=True)
    for name in found:
        if name not in allowed:
            raise ValueError(f"the option {name[:100]!r} is not allowed in it; allowed are {', '.join(allowed)}")
    return {name: values[-1] for name, values in found.items()}


def _server(text: str, port: int) -> Server:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", text)
    if found is None or not 0 < int(found[3] or port) < 65536:
        raise ValueError(f"{text[:100]!r} in it is not a host or host:port")
    return Server(found[1] or found[2], int(found[3] or port))
