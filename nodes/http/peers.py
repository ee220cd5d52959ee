"""Asking other nodes over HTTP, several at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import urllib3

from nodes.http import caller, strict_json
from nodes.runtime.connections import is_readable

CONNECT_TIMEOUT_SECONDS = 1.0
_MARGIN_SECONDS = 2.0
Found = TypeVar("Found")


class PeerError(Exception):
    """Raised when a node cannot be reached or does not answer as a node does.

    ``sent``: whether the request may have reached it.
    """

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.sent = sent


class Ask(NamedTuple):
    """One request. ``wait_ms``: how long the other node may wait by itself before it answers."""

    url: str
    method: str = "GET"
    fields: Mapping[str, str] | None = None
    body: Any = None
    headers: Mapping[str, str] | None = None
    wait_ms: float = 0


class Reply(NamedTuple):
    """An answer: status, JSON body, and when it had come, by this node's monotonic clock.

    ``repeated``: the request was sent a second time, and what became of the first nobody knows.
    """

    status: int
    body: dict[str, Any]
    received_at: float
    repeated: bool = False


class PeersBusy(Exception):
    """Raised, before anything is sent, when too many requests to other nodes are in progress."""


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that waits for an answer no longer than the caller who wants it, and so passes on that it left."""

    def getresponse(self) -> Any:
        """Raises ``ClientDisconnected`` where the caller of the current request has hung up."""
        sock, timeout = self.sock, self.timeout
        if not caller.wait(partial(is_readable, sock), cast("float", timeout), time.monotonic):
            raise TimeoutError
        return super().getresponse()


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class Team:
    """Room for some requests at once, for one thread."""

    def __init__(self, threads: ThreadPoolExecutor, room: threading.Semaphore, count: int) -> None:
        self._threads = threads
        self._room = room
        self._free = count

    def submit(self, call: Callable[[], Found]) -> Future[Found]:
        """Run a function on a thread, as the caller of this request, in one of the places."""
        self._free -= 1
        future = self._threads.submit(copy_context().run, call)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def run_all(self, calls: Mapping[str, Callable[[], Found]]) -> dict[str, Found]:
        """Run functions that ask at once; their results by name, when the last is there."""
        running = {name: self.submit(call) for name, call in calls.items()}
        return {name: future.result() for name, future in running.items()}

    def leave(self) -> None:
        """Give back the places that were not used."""
        if self._free:
            self._room.release(self._free)


class Peers:
    """HTTP connections to the other nodes. Thread-safe; more than ``parallel`` requests at once are refused.

    That counts what is asked for together. A single request is sent by the thread that wants it, and so is bounded
    already.
    """

    def __init__(self, parallel: int, monotonic: Callable[[], float]) -> None:
        self._pool = urllib3.PoolManager(num_pools=64, maxsize=parallel, retries=False)
        self._pool.pool_classes_by_scheme = {**self._pool.pool_classes_by_scheme, "http": _Pool}
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="peer")
        self._room = threading.Semaphore(parallel)
        self._monotonic = monotonic

    @contextmanager
    def team(self, count: int) -> Iterator[Team]:
        """Room for so many requests at once, taken before anything is done that needs them. Raises ``PeersBusy``."""
        taken = 0
        while taken < count and self._room.acquire(blocking=False):
            taken += 1
        team = Team(self._threads, self._room, taken)
        try:
            if taken < count:
                raise PeersBusy("too many requests to other nodes are in progress")
            yield team
        finally:
            team.leave()

    def ask(self, ask: Ask) -> Reply:
        """Send one request, which must be safe to repeat. Raises ``PeerError``."""
        headers = {"Accept": "application/json", **(ask.headers or {})}
        body = None if ask.body is None else strict_json.dumps(ask.body).encode()
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=_MARGIN_SECONDS + ask.wait_ms / 1000)

        def send() -> urllib3.BaseHTTPResponse:
            return self._pool.request(
                ask.method,
                ask.url,
                fields=ask.fields if body is None else None,
                body=body,
                headers=headers,
                timeout=timeout,
            )

        repeated = False
        try:
            try:
                answer = send()
            except urllib3.exceptions.ProtocolError:
                repeated = True
                answer = send()  # a kept connection was closed by the other side meanwhile
            received_at = self._monotonic()
            found = strict_json.written(answer.data.decode())
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            refused = isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
            raise PeerError(_sentence(ask.url, error), sent=repeated or not refused) from error
        if not isinstance(found, dict):
            raise PeerError(f"{ask.url} did not answer with a JSON object", sent=True)
        return Reply(answer.status, found, received_at, repeated)

    def ask_all(self, asks: Mapping[str, Ask]) -> dict[str, Reply | PeerError]:
        """Send all requests at once; answers and failures by name, when the last is there."""
        try:
            return self.run_all({name: partial(self._answer, ask) for name, ask in asks.items()})
        except PeersBusy as busy:
            return dict.fromkeys(asks, PeerError(str(busy), sent=False))

    def ask_each(self, asks: Mapping[str, Ask], timeout_seconds: float) -> Iterator[tuple[str, Reply | PeerError]]:
        """Send all requests at once, and yield each answer or failure when it is there, for so long."""
        try:
            with self.team(len(asks)) as team:
                running = {team.submit(partial(self._answer, ask)): name for name, ask in asks.items()}
        except PeersBusy as busy:
            yield from dict.fromkeys(asks, PeerError(str(busy), sent=False)).items()
            return
        try:
            for done in as_completed(running, timeout_seconds):
                yield running[done], done.result()
        except TimeoutError:
            return

    def run_all(self, calls: Mapping[str, Callable[[], Found]]) -> dict[str, Found]:
        """Run functions that ask at once; their results by name, when the last is there. Raises ``PeersBusy``."""
        with self.team(len(calls)) as team:
            return team.run_all(calls)

    def _answer(self, ask: Ask) -> Reply | PeerError:
        try:
            return self.ask(ask)
        except PeerError as error:
            return error

    def close(self) -> None:
        """Let go of the threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.clear()


def _sentence(url: str, error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"{url} did not answer in time"
    if isinstance(error, urllib3.exceptions.HTTPError):
        return f"{url} cannot be reached"
    return f"{url} did not answer with JSON"
