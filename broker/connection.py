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

from broker.errors import LogFull, LogMissing, LogRefused, LogUnreachable, LogUnverified, OutcomeUnknown
from broker.url import require_options

Client = redis.Redis


class _NotConnected(exceptions.ConnectionError):
    """Raised if no connection could be made, so nothing was sent; redis-py does not distinguish this case."""


class Link:
    """The link to the log server, which can be cut: then connections break, and no new one is made. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cut = False
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()

    def cut(self) -> None:
        """Break every connection, including those waiting for a response."""
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
        """Register a connection for ``cut`` to break. Raises as ``require`` does."""
        with self._lock:
            self._connections.add(connection)
            self.require()


class _Refusal:
    """A mixin for redis-py's connections: separates failed connects from failed commands, and lets a link cut them."""

    link: Link
    _sock: socket.socket | None

    def connect(self) -> None:
        self.link.require()
        try:
            super().connect()  # type: ignore[misc]
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            raise _NotConnected(str(error)) from error
        self.link.made(self)

    def sever(self) -> None:
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def connect(
    url: str,
    answer_timeout_seconds: float = 2,
    max_connections: int = 256,
    as_text: bool = True,
    link: Link | None = None,
) -> Client:
    """Return a client for the log; nothing is sent before the first command. Without ``as_text`` replies are bytes.

    Commands are never retried by the client library: a retried append would be a second write, and a retried group
    read would leave entries delivered but unseen. A command without a reply after ``answer_timeout_seconds`` fails.
    Raises ``ValueError`` for a URL that is not a Redis URL or has an option that is not allowed.
    """
    require_options(url)  # redis-py lets them replace the arguments below
    pool = redis.ConnectionPool.from_url(
        url,
        max_connections=max_connections,
        socket_timeout=answer_timeout_seconds,
        socket_connect_timeout=min(answer_timeout_seconds, 2.0),
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=as_text,
        encoding_errors="replace",
    )
    base: Any = pool.connection_class
    pool.connection_class = type(f"Lab{base.__name__}", (_Refusal, base), {"link": link or Link()})
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
    except (_NotConnected, exceptions.BusyLoadingError, exceptions.MaxConnectionsError) as error:
        raise LogUnreachable(f"the log server cannot be reached: {error}") from error
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise OutcomeUnknown(f"the log server did not answer: {error}") from error
    except exceptions.NoScriptError as error:
        raise LogUnverified("the log server was restarted, and its log is not verified yet") from error
    except exceptions.ResponseError as error:
        if "NOLOG" in str(error) or "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
            raise LogMissing(f"the log server holds no log: {error}") from error
        refused = LogFull if "OOM" in str(error) or isinstance(error, exceptions.OutOfMemoryError) else LogRefused
        raise refused(f"the log server refused: {error}") from error
