"""Asking other nodes over HTTP, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import urllib3

from nodes import strict_json

CONNECT_TIMEOUT_SECONDS = 1.0
_MARGIN_SECONDS = 2.0


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


class Peers:
    """HTTP connections to the other nodes. Thread-safe; at most ``parallel`` requests at once, the rest queue."""

    def __init__(self, parallel: int, monotonic: Callable[[], float]) -> None:
        self._pool = urllib3.PoolManager(num_pools=64, maxsize=parallel, retries=False)
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="peer")
        self._monotonic = monotonic

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
        return dict(zip(asks, self._threads.map(self._answer, asks.values()), strict=True))

    def ask_each(self, asks: Mapping[str, Ask], timeout_seconds: float) -> Iterator[tuple[str, Reply | PeerError]]:
        """Send all requests at once, and yield each answer or failure when it is there, for so long."""
        running = {self._threads.submit(self._answer, ask): name for name, ask in asks.items()}
        try:
            for done in as_completed(running, timeout_seconds):
                yield running[done], done.result()
        except TimeoutError:
            return

    def run_all(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Run functions that ask at once; their results by name, when the last is there."""
        return dict(zip(calls, self._threads.map(lambda call: call(), calls.values()), strict=True))

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
