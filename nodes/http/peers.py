"""Requests to other nodes over HTTP, several at once."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import quote

import urllib3

from nodes.http import strict_json
from nodes.runtime import caller

CONNECT_TIMEOUT_SECONDS = 1.0
_MARGIN_SECONDS = 2.0  # to respond, beyond the requested waiting time
Found = TypeVar("Found")


class PeerError(Exception):
    """Raised when a node cannot be reached or sends an invalid response.

    ``sent``: whether the request may have reached it. ``role``: the node's role to its caller, such as ``primary``.
    ``extra``: further members of the problem details.
    """

    def __init__(self, detail: str, *, sent: bool, role: str = "node", **extra: Any) -> None:
        super().__init__(detail)
        self.sent, self.role, self.extra = sent, role, extra


class NotJson(PeerError):
    """Raised when a node answered, but not with a JSON object: it may not have the endpoint."""


class PeerRefused(Exception):
    """Raised when a node returned problem details (``body``), which are passed to the caller unchanged."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body.get("detail"))
        self.status, self.body = status, body


class PeersBusy(Exception):
    """Raised, before anything is sent, when too many requests to other nodes are in progress."""


class Ask(NamedTuple):
    """One request. ``wait_ms``: how long the other node can wait before it responds."""

    url: str
    method: str = "GET"
    fields: Mapping[str, str] | None = None
    body: Any = None
    headers: Mapping[str, str] | None = None
    wait_ms: float = 0


class Reply(NamedTuple):
    """``sent_at`` and ``received_at``: by this node's monotonic clock. ``repeated``: sent twice, the first outcome
    unknown.
    """

    status: int
    body: dict[str, Any]
    received_at: float
    repeated: bool = False
    sent_at: float = 0.0


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that closes when the caller of the current request hangs up, so the other node notices."""

    def getresponse(self) -> Any:
        sock, timeout = self.sock, self.timeout
        if not caller.wait(partial(caller.is_readable, sock), cast("float", timeout), time.monotonic):
            raise TimeoutError
        return super().getresponse()


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


@dataclass
class Team:
    """Capacity for a number of concurrent requests, for one thread; ``free``: the remaining capacity."""

    _threads: futures.ThreadPoolExecutor
    _room: threading.Semaphore
    free: int = 0

    def submit(self, call: Callable[[], Found]) -> Future[Found]:
        """Run a function on a thread, on behalf of the current caller."""
        self.free -= 1
        future = self._threads.submit(copy_context().run, call)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def run_all(self, calls: Mapping[str, Callable[[], Found]]) -> dict[str, Found]:
        running = {name: self.submit(call) for name, call in calls.items()}
        return {name: future.result() for name, future in running.items()}


class Peers:
    """HTTP connections to the other nodes. More than ``parallel`` concurrent requests are refused. Thread-safe."""

    def __init__(self, parallel: int, monotonic: Callable[[], float]) -> None:
        self._pool = urllib3.PoolManager(num_pools=64, maxsize=parallel, retries=False)
        self._pool.pool_classes_by_scheme = {**self._pool.pool_classes_by_scheme, "http": _Pool}
        self._threads = futures.ThreadPoolExecutor(parallel, thread_name_prefix="peer")
        self._room = threading.Semaphore(parallel)
        self._monotonic = monotonic

    def ask(self, ask: Ask) -> Reply:
        """Send one request, which must be safe to repeat. Raises ``PeerError``."""
        headers = {"Accept": "application/json", **(ask.headers or {})}
        body = None if ask.body is None else strict_json.dumps(ask.body).encode()
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=_MARGIN_SECONDS + ask.wait_ms / 1000)
        fields = ask.fields if body is None else None
        options: Any = {"fields": fields, "body": body, "headers": headers, "timeout": timeout}
        send = partial(self._pool.request, ask.method, ask.url, **options)
        repeated, sent_at = False, self._monotonic()
        try:
            try:
                answer = send()
            except urllib3.exceptions.ProtocolError:
                repeated = True
                answer = send()  # the other side had closed the kept connection
            received_at = self._monotonic()
            found = strict_json.written(answer.data.decode())
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            refused = isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
            if isinstance(error, ValueError):
                raise NotJson(f"{ask.url} did not answer with JSON", sent=True) from error
            if isinstance(error, urllib3.exceptions.ReadTimeoutError):
                sentence = f"{ask.url} did not answer in time"
            else:
                sentence = f"{ask.url} cannot be reached"
            raise PeerError(sentence, sent=repeated or not refused) from error
        if not isinstance(found, dict):
            raise NotJson(f"{ask.url} did not answer with a JSON object", sent=True)
        return Reply(answer.status, found, received_at, repeated, sent_at)

    def require(self, ask: Ask, role: str = "node", **extra: Any) -> Reply:
        """Return an answer of status 200. Raises ``PeerError`` with ``role`` and ``extra``, or ``PeerRefused``."""
        try:
            reply = self.ask(ask)
        except PeerError as error:
            error.role, error.extra = role, extra
            raise
        if reply.status != 200:
            in_doubt = {"outcome": "unknown"} if reply.repeated and ask.method != "GET" else {}
            raise PeerRefused(reply.status, reply.body | in_doubt)
        return reply

    @contextmanager
    def team(self, count: int) -> Iterator[Team]:
        """Reserve capacity for a number of concurrent requests in advance. Raises ``PeersBusy``."""
        team = Team(self._threads, self._room)
        while team.free < count and self._room.acquire(blocking=False):
            team.free += 1
        try:
            if team.free < count:
                raise PeersBusy("too many requests to other nodes are in progress")
            yield team
        finally:
            if team.free:
                self._room.release(team.free)

    def run_all(self, calls: Mapping[str, Callable[[], Found]]) -> dict[str, Found]:
        """Run functions that send requests at once; return their results by name. Raises ``PeersBusy``."""
        with self.team(len(calls)) as team:
            return team.run_all(calls)

    def ask_all(self, asks: Mapping[str, Ask]) -> dict[str, Reply | PeerError]:
        """Send all requests at once; return answers and failures by name when the last has arrived."""
        try:
            return self.run_all({name: partial(self.attempt, ask) for name, ask in asks.items()})
        except PeersBusy as busy:
            return dict.fromkeys(asks, PeerError(str(busy), sent=False))

    def ask_each(self, asks: Mapping[str, Ask], timeout_seconds: float) -> Iterator[tuple[str, Reply | PeerError]]:
        """Send all requests at once, and yield each answer or failure on arrival, until the time is up."""
        try:
            with self.team(len(asks)) as team:
                running = {team.submit(partial(self.attempt, ask)): name for name, ask in asks.items()}
        except PeersBusy as busy:
            yield from dict.fromkeys(asks, PeerError(str(busy), sent=False)).items()
            return
        with suppress(TimeoutError):
            for done in futures.as_completed(running, timeout_seconds):
                yield running[done], done.result()

    def attempt(self, ask: Ask) -> Reply | PeerError:
        try:
            return self.ask(ask)
        except PeerError as error:
            return error

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.clear()


def failure(reply: Reply | Exception) -> str:
    return str(reply) if isinstance(reply, Exception) else str(reply.body.get("detail", reply.status))


def body_or_error(reply: Reply | Exception) -> dict[str, Any]:
    return reply.body if isinstance(reply, Reply) and reply.status == 200 else {"error": failure(reply)}


def segment(name: str) -> str:
    """Quote a name as one segment of a URL's path. Dots too: clients resolve the segments ``.`` and ``..``."""
    return quote(name, safe="").replace(".", "%2E")
