"""A node of Redis (6.2 or later) or Valkey: all numbers in one sorted set, where ``ZADD GT`` keeps the higher one."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from redis import ConnectionPool, Redis, exceptions
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from lab.probe.target import PREFIX, Description, NotNow, Settings, Shown, TargetError

_MARKER = "created by lab probe"  # a member of every set that a probe created
_EXPIRY_MS = 3_600_000  # after the last write, if a run could not remove the set
_ANSWER_SECONDS = 5.0
_SHOWN_MAX = 200  # characters of a server's error
_PORT = 6379

_ALLOWED = {"host", "port", "db", "username", "path", "connection_class"}  # parts of an address, and ssl_…
_READS = ("zmscore", "role", "info")
_RIGHTS = (*_READS, "exists", "zadd", "pexpire")
# One command of each right; those with arguments that are no numbers fail after their right was checked.
_HARMLESS = (
    ("ZMSCORE", PREFIX, _MARKER),
    ("ROLE",),
    ("INFO", "replication"),
    ("EXISTS", PREFIX),
    ("ZADD", PREFIX, "score", _MARKER),
    ("PEXPIRE", PREFIX, "milliseconds"),
)
_SETTINGS = (
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "replica-serve-stale-data",
    "replica-read-only",
    "repl-disable-tcp-nodelay",
)
_WRITE = f"ZADD {PREFIX} GT <number> <key> 0 <mark>; PEXPIRE {PREFIX} {_EXPIRY_MS}"
_READ = f"ZMSCORE {PREFIX} <keys>; ROLE"
_SETTING = f"INFO replication; INFO server; CONFIG GET {', '.join(_SETTINGS)}"
_REMOVE = f"EXISTS {PREFIX}; ZMSCORE {PREFIX} <mark>; PEXPIRE {PREFIX} 0"
_NOT_NOW = ("NOREPLICAS", "TRYAGAIN", "BUSY", "UNBLOCKED")  # whose text starts so, beside the classes of redis-py
_NOT_NOW_CLASSES = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ClusterDownError)


class Node:
    def __init__(self, options: dict[str, Any], password: str | None) -> None:
        self._user = options.get("username") or "default"
        self._selects = bool(options.get("db"))
        self.name = _name(options)
        self._pool = ConnectionPool(
            **options,
            password=password,
            protocol=2,
            decode_responses=True,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,  # CLIENT SETINFO would need a right
        )
        self._client: Any = Redis(connection_pool=self._pool)

    def describe(self) -> Description:
        found = dict(zip(_RIGHTS, self._replies(*_HARMLESS), strict=True))
        denied = {name for name, reply in found.items() if isinstance(reply, exceptions.NoPermissionError)}
        self._checked([found[name] for name in _READS if name not in denied])
        is_replica = "role" not in denied and found["role"][0] != "master"
        missing = [name for name in (_READS if is_replica else _RIGHTS) if name in denied]
        statements = (_READ, _SETTING) if is_replica else (_WRITE, _READ, _SETTING, _REMOVE)
        return Description(statements, [self._rule(missing)] if missing else [])

    def settings(self) -> Settings:
        (info, server) = self._require(["INFO", "replication"], ["INFO", "server"])
        replies = self._replies(*(["CONFIG GET", name] for name in _SETTINGS))
        values = {name: value for reply in replies if isinstance(reply, dict) for name, value in reply.items()}
        version = "valkey_version" if "valkey_version" in server else "redis_version"
        known = {version: str(server.get(version)), "role": str(info["role"])}
        return Settings(info.get("master_replid"), known | values, list(_warnings(info, values)))

    def prepare(self) -> None:
        self._require_primary()
        self._exists_as_own()
        self._require(["ZADD", PREFIX, "GT", 0, _MARKER], ["PEXPIRE", PREFIX, _EXPIRY_MS])

    def write(self, key: str, number: int) -> None:
        # The mark as well: another probe's end, or an eviction, can have removed the set.
        self._ask(["ZADD", PREFIX, "GT", number, key, 0, _MARKER], ["PEXPIRE", PREFIX, _EXPIRY_MS])

    def read(self, keys: Sequence[str]) -> Shown:
        scores, role = self._ask(["ZMSCORE", PREFIX, *keys], ["ROLE"])
        numbers = {key: int(score) for key, score in zip(keys, scores, strict=True) if score is not None}
        return Shown(numbers, role[0] != "master")

    def remove(self) -> None:
        self._require_primary()
        if self._exists_as_own():
            self._require(["PEXPIRE", PREFIX, 0])  # removes it at once; DEL would need another right

    def close(self) -> None:
        self._pool.disconnect()

    def _require_primary(self) -> None:
        (role,) = self._require(["ROLE"])
        if role[0] != "master":
            raise TargetError(f"{self.name} is a replica; its primary is {_address(role[1], role[2])}")

    def _exists_as_own(self) -> bool:
        """Raise ``TargetError`` if the key exists, and no probe created it."""
        exists, marker = self._replies(["EXISTS", PREFIX], ["ZMSCORE", PREFIX, _MARKER])
        if exists == 1 and (marker == [None] or str(marker).startswith("WRONGTYPE")):
            raise TargetError(f"{self.name}: the key {PREFIX} exists, and lab probe did not create it")
        return bool(self._checked([exists, marker])[0])

    # -- asking ------------------------------------------------------------------------------------------------------

    def _require(self, *commands: Sequence[Any]) -> list[Any]:
        return self._checked(self._replies(*commands))

    def _checked(self, replies: list[Any]) -> list[Any]:
        """Raise ``TargetError`` for an error among the replies."""
        for error in replies:
            if isinstance(error, Exception):
                found = self._error(error)
                raise TargetError(f"{self.name}: {found}") if isinstance(found, NotNow) else found
        return replies

    def _ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Return the replies. Raises ``NotNow``, or ``TargetError`` if repeating cannot help."""
        found = self._replies(*commands)
        for reply in found:
            if isinstance(reply, Exception):
                raise self._error(reply)
        return found

    def _replies(self, *commands: Sequence[Any]) -> list[Any]:
        """Return the replies, including errors, to commands that are sent together."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            return list(pipeline.execute(raise_on_error=False))
        except exceptions.RedisError as error:
            return [error] * len(commands)

    def _error(self, error: Exception) -> Exception:
        text = str(error)[:_SHOWN_MAX].rstrip(".")
        if isinstance(error, exceptions.AuthenticationError):
            why = f"user {self._user} cannot log in: {text}"
            return TargetError(f"{self.name}: {why}; the password is read from LAB_PROBE_PASSWORD")
        if isinstance(error, exceptions.NoPermissionError):
            return TargetError(f"{self.name}: user {self._user} lacks a right; on every node: {self._rule(_RIGHTS)}")
        if isinstance(error, exceptions.ReadOnlyError):
            return TargetError(f"{self.name} has become a replica, and accepts no writes")
        if isinstance(error, exceptions.MovedError):
            return TargetError(f"{self.name} is a node of a cluster, which cannot be measured")
        if isinstance(error, _NOT_NOW_CLASSES) or text.startswith(_NOT_NOW):
            return NotNow(text)
        return TargetError(f"{self.name}: {text}")

    def _rule(self, rights: Sequence[str]) -> str:
        names = (*rights, *["select"] * self._selects)
        return f"ACL SETUSER {self._user} ~{PREFIX} {' '.join(f'+{name}' for name in names)}"


def _warnings(info: dict[str, Any], values: dict[str, str]) -> list[str]:
    found = {
        "Its link to the primary is down: it answers with what it has.": info.get("master_link_status") == "down",
        "WAIT n returns when any n replicas have a write, not when the replica has it that is read next.": (
            info["role"] == "master" and int(info.get("connected_slaves", 0)) > 1
        ),
        "min-replicas-to-write counts replicas that acknowledged anything lately; no write waits for them.": (
            values.get("min-replicas-to-write", "0") != "0"
        ),
        "With replica-serve-stale-data no, reads fail while the link to the primary is down.": (
            values.get("replica-serve-stale-data") == "no"
        ),
        "With replica-read-only no, it can have data that its primary does not have.": (
            info["role"] != "master" and values.get("replica-read-only") == "no"
        ),
        "repl-disable-tcp-nodelay delays replication by up to 40 ms.": values.get("repl-disable-tcp-nodelay") == "yes",
    }
    return [sentence for sentence, applies in found.items() if applies]


def _name(options: dict[str, Any]) -> str:
    if "path" in options:
        return str(options["path"])
    database = f"/{options['db']}" if options.get("db") else ""
    return _address(options.get("host", "localhost"), options.get("port", _PORT)) + database


def _address(host: Any, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def node(address: str, password: str | None) -> Node:
    """Return a node for an address such as ``redis://user@host:6379/0``, or ``rediss`` with options ``ssl_…``."""
    try:
        options: dict[str, Any] = parse_url(address)  # type: ignore[no-untyped-call]
        database = urlsplit(address).path.strip("/")
        if "path" not in options and database and not database.isdecimal():
            raise ValueError(f"{database[:40]!r} is not the number of a database")
    except ValueError as error:
        raise TargetError(f"not an address such as redis://host:{_PORT}: {error}") from None
    if any("password" in name for name in options):
        raise TargetError(f"{_name(options)}: an address with a password is visible to others; use LAB_PROBE_PASSWORD")
    tls = "ssl_" if address.startswith("rediss:") else "?"
    if unknown := {name for name in options if name not in _ALLOWED and not name.startswith(tls)}:
        raise TargetError(f"{_name(options)}: unknown options in the address: {', '.join(sorted(unknown))}")
    return Node(options, password)
