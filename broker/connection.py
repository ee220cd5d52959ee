"""Connections to the log server, and the translation of their failures into ``broker.errors``."""

import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from broker import address, tls
from broker.address import Address, NotLocated, Server
from broker.errors import LogFull, LogMissing, LogMoved, LogRefused, LogUnreachable, LogUnverified, OutcomeUnknown

Client = redis.Redis

# A server that answers with one of these has not done what it was told, and no longer takes writes.
_MOVED = ("READONLY", "MOVED", "ASK", "TRYAGAIN", "MASTERDOWN", "UNBLOCKED")
# A server that answers with one of these may have been replaced without knowing it.
_IN_DOUBT = ("NOREPLICAS", "CLUSTERDOWN", "UNVERIFIED")


class _NotConnected(exceptions.ConnectionError):
    """Raised if no connection could be made, so nothing was sent; redis-py does not distinguish this case."""


class Link:
    """The connections to the log server at an address: cut on request, and when another server has taken over.

    Thread-safe.
    """

    def __init__(self, found: Address) -> None:
        self.address = found
        self._lock = threading.Lock()
        self._is_cut = False
        self._server: Server | None = None
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()

    def cut(self) -> None:
        """Break every connection, including those waiting for a response, and let no new one be made."""
        with self._lock:
            self._is_cut = True
            connections = list(self._connections)
        for connection in connections:
            connection.sever()

    def mend(self) -> None:
        with self._lock:
            self._is_cut = False

    def require(self) -> None:
        """Raise redis-py's ``ConnectionError`` while the link is cut."""
        if self._is_cut:
            raise _NotConnected("the link to it is cut")

    def made(self, connection: Any) -> None:
        """Register a connection to be broken. Raises redis-py's ``ConnectionError`` if it already has to be."""
        with self._lock:
            self._connections.add(connection)
            self.require()
            if self.has_left(connection):
                connection.sever()
                raise _NotConnected("another server has taken over")

    def has_left(self, connection: Any) -> bool:
        """Whether another server has taken over from the one of this connection."""
        return self._server is not None and (connection.host, connection.port) != self._server

    def follow(self) -> None:
        """Find the server that takes writes now, as ``locate``. Raises ``LogUnreachable``."""
        try:
            self.locate()
        except NotLocated as error:
            raise LogUnreachable(f"the log server cannot be found: {error}") from error

    def locate(self) -> Server | None:
        """Return the server that takes writes now, ``None`` if it cannot change; break the connections to all others.

        Otherwise a read that is blocked at a server that hangs, or at a former master that was not demoted yet, would
        wait for its time-out, and a write could go there after another one went to its successor. Raises
        ``NotLocated``.
        """
        server = self.address.locate()
        if server is not None and server != self._server:
            self._server = server
            with self._lock:
                others = [one for one in self._connections if self.has_left(one)]
            for connection in others:
                connection.sever()
        return server


class _Lab:
    """A mixin for redis-py's connections: finds the server, and separates failed connects from failed commands."""

    link: Link
    host: str
    port: int
    _sock: socket.socket | None
    _is_wrong = False  # its server takes no writes any more

    def connect(self) -> None:
        self.link.require()
        if self._is_wrong or self.link.has_left(self):  # it comes from the pool
            self._is_wrong = False
            self.disconnect()  # type: ignore[attr-defined]
        try:
            if self._sock is None and (server := self.link.locate()) is not None:
                self.host, self.port = server
            super().connect()  # type: ignore[misc]
        except exceptions.AuthenticationError:
            raise
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError, NotLocated) as error:
            raise _NotConnected(str(error)) from error
        self.link.made(self)

    def on_connect_check_health(self, *, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health=check_health)  # type: ignore[misc]
        with suppress(exceptions.NoPermissionError):
            self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
            role = self.read_response()[0]
            role = role.decode() if isinstance(role, bytes) else role
            if role == "sentinel":
                raise _NotConnected("it is a Sentinel; use redis+sentinel://HOST:26379/MASTER-NAME")
            if role != "master":
                raise _NotConnected("it is a replica of another server; use that one")

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except exceptions.ResponseError as error:
            if _code(error) in _MOVED + _IN_DOUBT:
                self.link.address.forget()
                self._is_wrong = True
            raise

    def sever(self) -> None:
        if self._sock is not None:
            tls.shutdown(self._sock)


def connect(
    to: str | Link,
    answer_timeout_seconds: float = 2,
    max_connections: int = 256,
    as_text: bool = True,
) -> Client:
    """Return a client for the log; nothing is sent before the first command. Without ``as_text`` replies are bytes.

    Commands are never retried by the client library: a retried append would be a second write, and a retried group
    read would leave entries delivered but unseen. A command without a reply after ``answer_timeout_seconds`` fails.
    ``to``: the URL of the log of the lab ``lab14``, or a link. Raises ``ValueError`` as ``broker.address.parse``.
    """
    link = to if isinstance(to, Link) else Link(address.parse(to))
    pool = redis.ConnectionPool.from_url(
        link.address.url,
        max_connections=max_connections,
        socket_timeout=answer_timeout_seconds,
        socket_connect_timeout=min(answer_timeout_seconds, 2.0),
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=as_text,
        encoding_errors="replace",
        driver_info=None,  # which would take two round trips, and a right
    )
    base = tls.shared(pool.connection_class)
    pool.connection_class = type(f"Lab{base.__name__}", (_Lab, base), {"link": link})
    return redis.Redis(connection_pool=pool)


def register(client: Client, *scripts: str) -> Script:
    """Return one script, made of the text of these."""
    folder = resources.files("broker")
    return client.register_script("".join(folder.joinpath(script).read_text(encoding="utf-8") for script in scripts))


@contextmanager
def translated() -> Iterator[None]:
    """Translate redis-py's exceptions into ``broker.errors``, by what each means for a command."""
    try:
        yield
    except exceptions.AuthenticationError as error:  # which redis-py takes for a lost connection
        raise LogRefused(f"the log server refused the user or its password: {error}") from error
    except (_NotConnected, exceptions.BusyLoadingError, exceptions.MaxConnectionsError) as error:
        raise LogUnreachable(f"the log server cannot be reached: {error}") from error
    except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.InvalidResponse, OSError) as error:
        raise OutcomeUnknown(f"the log server did not answer: {error}") from error
    except exceptions.ResponseError as error:
        raise _meaning(error, str(error)) from error


def _meaning(error: exceptions.ResponseError, said: str) -> Exception:
    code = _code(error)
    if code == "UNVERIFIED":
        return LogUnverified("the log server was restarted or took over, and its log is not verified yet")
    if code in {"NOLOG", "NOGROUP"} or "no longer exists" in said:
        return LogMissing(f"the log server holds no log: {said}")
    if code in _MOVED:
        return LogMoved(f"the log server does not take writes any more: {code} {said}")
    refused = LogFull if code == "OOM" else LogRefused
    return refused(f"the log server refused: {said}")


def _code(error: exceptions.ResponseError) -> str:
    """The first word of the server's answer, which redis-py removes if it knows it; pipelines add words before it."""
    known = getattr(error, "status_code", None)
    return str(known or str(error).rpartition(" of pipeline caused error: ")[2].split(" ", 1)[0])
