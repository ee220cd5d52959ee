"""Connections of nodes to each other, below urllib3: a request is a call of the other node's app in a task of its."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import unquote, urlencode, urlsplit

import urllib3

from lab.simulation.network import Network
from lab.simulation.scheduler import Mailbox, Process


class Host(NamedTuple):
    """A node that listens: its process, and its app once it has started."""

    process: Process
    app: Callable[..., Any]


class HttpConnections:
    """The nodes by host and port, and the requests in progress."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.hosts: dict[str, Host] = {}
        self.calls: dict[_Call, None] = {}

    def end(self, process: Process) -> None:
        """Break the connections to a node whose process has ended."""
        for call in [call for call in self.calls if call.process is process]:
            call.reset()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let urllib3 use these connections."""
        with patch.object(HttpPool, "connections", self, create=True), patch.object(urllib3, "PoolManager", HttpPool):
            yield


class Answer(NamedTuple):
    """What urllib3 returns of a response."""

    status: int
    data: bytes


class HttpPool:
    """``urllib3.PoolManager``: requests are calls of the other node's app, in a task of that node."""

    connections: HttpConnections  # of the world that is installed
    pool_classes_by_scheme: Mapping[str, Any] = {}

    def __init__(self, **_: Any) -> None:
        self._known: dict[str, Process] = {}  # to which a connection is kept

    def clear(self) -> None:
        """Close every connection."""

    def request(
        self,
        method: str,
        url: str,
        *,
        fields: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: urllib3.Timeout,
    ) -> Answer:
        """Raise the exceptions of urllib3."""
        call = _Call(self.connections, urlsplit(url).netloc, self._known)
        call.connect(timeout.connect_timeout)
        environ = _environ(method, url, urlencode(fields or {}), body or b"", headers or {})
        return call.exchange(environ, timeout.read_timeout)


class _Call:
    """One request, from the caller's side."""

    def __init__(self, connections: HttpConnections, netloc: str, known: dict[str, Process]) -> None:
        if netloc not in connections.hosts:
            raise AssertionError(f"no node of this world listens at {netloc}")
        self._connections, self._netloc, self._known = connections, netloc, known
        self._network, self._scheduler = connections.network, connections.network.scheduler
        self._caller, self._name = self._scheduler.process, self.process.name
        self._found: Mailbox[Answer | bool] = Mailbox(self._scheduler)
        self._pool: Any = urllib3.HTTPConnectionPool("simulated")

    def connect(self, timeout_seconds: Any) -> None:
        known = self._known.get(self._netloc)
        if known is not None and known.is_alive:
            return
        if known is not None:  # the end of the kept connection is noticed when it is used
            del self._known[self._netloc]
            raise urllib3.exceptions.ProtocolError("Connection aborted.")
        self._ask(lambda: self._reply(self.process.is_alive))
        found = self._found.take(timeout_seconds)
        if found is None:
            raise urllib3.exceptions.ConnectTimeoutError(self._pool, "timed out")
        if found is False:
            raise urllib3.exceptions.NewConnectionError(self._pool, "Connection refused")
        self._known[self._netloc] = self.process

    def exchange(self, environ: dict[str, Any], timeout_seconds: Any) -> Answer:
        self._connections.calls[self] = None
        process = self._known[self._netloc]
        try:
            self._ask(lambda: self._serve(environ, process))
            found = self._found.take(timeout_seconds)
        finally:
            del self._connections.calls[self]
        if isinstance(found, Answer):
            return found
        self._known.pop(self._netloc, None)
        if found is None:
            raise urllib3.exceptions.ReadTimeoutError(self._pool, environ["PATH_INFO"], "Read timed out.")
        raise urllib3.exceptions.ProtocolError("Connection aborted.")

    @property
    def process(self) -> Process:
        """That which listens there now."""
        return self._connections.hosts[self._netloc].process

    def reset(self) -> None:
        """The process at the other end has ended."""
        self._reply(False)

    def _ask(self, arrive: Callable[[], None]) -> None:
        self._network.send(self._caller.name, self._name, arrive)

    def _reply(self, found: Answer | bool) -> None:
        self._network.send(self._name, self._caller.name, lambda: self._found.put(found))

    def _serve(self, environ: dict[str, Any], process: Process) -> None:
        """Let the process to which the connection was made answer: not its successor."""
        if process.is_alive:
            app = self._connections.hosts[self._netloc].app
            self._scheduler.spawn(lambda: self._reply(_respond(app, environ)), process)
        else:
            self.reset()


def _environ(method: str, url: str, query: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """A request as a WSGI server describes it."""
    parts = urlsplit(url)
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(parts.path, "latin-1"),
        "QUERY_STRING": query or parts.query,
        "SERVER_NAME": parts.hostname,
        "SERVER_PORT": str(parts.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_HOST": parts.netloc,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    return environ | {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}


def _respond(app: Callable[..., Any], environ: dict[str, Any]) -> Answer:
    statuses: list[str] = []
    found = app(environ, lambda status, _headers, _error=None: statuses.append(status))
    try:
        body = b"".join(found)
    finally:
        if hasattr(found, "close"):
            found.close()
    return Answer(int(statuses[-1].split()[0]), body)
