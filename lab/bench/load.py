"""Requests over many connections, each sent when the one before it was answered: a closed loop on raw sockets.

On raw sockets, so that next to nothing of the machine's time goes into asking, and what is measured is who answers.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from broker.stats import quantile
from lab.errors import LabError

_ANSWER_SECONDS = 30.0
_CHUNK = 65536
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class LoadError(LabError):
    """Raised when a server does not answer, or does so with another status than 200."""


@dataclass(frozen=True)
class Loaded:
    """What a load met: how many answers in how long, and how long each took."""

    answers: int
    seconds: float
    latencies_ms: list[float]

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    def quantile_ms(self, q: float) -> float:
        """A quantile of the latencies."""
        return quantile(self.latencies_ms, q)


def request(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    """One request as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def run(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> Loaded:
    """Send ``requests`` in turn, over and over, on so many connections for so long. Raises ``LoadError``."""
    with selectors.DefaultSelector() as selector:
        sockets = [connected(url) for _ in range(connections)]
        try:
            for one in sockets:
                selector.register(one, selectors.EVENT_READ, _Connection(one))
            return _loop(selector, requests, seconds)
        finally:
            for one in sockets:
                one.close()


def once(url: str, raw: bytes) -> None:
    """Send one request, and wait for the answer. Raises ``LoadError``."""
    with connected(url) as one:
        connection = _Connection(one)
        connection.send(raw)
        while not connection.answered():
            pass


def answers(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """One after the other, the answers to what was sent on each of these. Raises ``LoadError``."""
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            selector.register(one, selectors.EVENT_READ, _Connection(one))
        while selector.get_map():
            for key in _ready(selector):
                if key.data.answered():
                    selector.unregister(key.fileobj)
                    yield


class Paced:
    """So many requests a second, on a connection and in a thread of its own, while in the ``with`` block.

    Each is sent at its time, or as soon after that as the one before was answered.
    """

    def __init__(self, url: str, requests: Sequence[bytes], per_second: float) -> None:
        self._url = url
        self._requests = requests
        self._interval = 1 / per_second
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        """Begin."""
        self._running = self._threads.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        """End. Raises ``LoadError`` where a request was not answered."""
        self._over.set()
        self._threads.shutdown()
        self._running.result()

    def _run(self) -> None:
        with connected(self._url) as one:
            connection = _Connection(one)
            due = time.perf_counter()
            sent = 0
            while not self._over.wait(max(0.0, due - time.perf_counter())):
                connection.send(self._requests[sent % len(self._requests)])
                while not connection.answered():
                    pass
                sent += 1
                due += self._interval


def connected(url: str) -> socket.socket:
    """A connection, which the caller closes."""
    parts = urlsplit(url)
    found = socket.create_connection((parts.hostname, parts.port), timeout=_ANSWER_SECONDS)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


class _Connection:
    """One connection, and the answer that is coming in on it."""

    __slots__ = ("_buffer", "_socket", "sent_at")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""
        self.sent_at = 0.0

    def send(self, raw: bytes) -> None:
        """Send a request, which is short enough for the kernel's buffer or else waits for it."""
        self.sent_at = time.perf_counter()
        self._socket.sendall(raw)

    def answered(self) -> bool:
        """Take what has come in; whether that completes the answer. Raises ``LoadError``."""
        chunk = self._socket.recv(_CHUNK)
        if not chunk:
            raise LoadError("the server closed a connection without an answer")
        self._buffer += chunk
        end = self._buffer.find(_END)
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        length = int(head.split(_LENGTH, 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + len(_END) + length:
            return False
        if b" 200 " not in head[:16]:
            raise LoadError(self._buffer[:500].decode(errors="replace"))
        self._buffer = b""
        return True


def _loop(selector: selectors.BaseSelector, requests: Sequence[bytes], seconds: float) -> Loaded:
    sent = 0
    latencies_ms = []
    connections: list[_Connection] = [key.data for key in selector.get_map().values()]
    began = time.perf_counter()
    for connection in connections:
        connection.send(requests[sent % len(requests)])
        sent += 1
    while True:
        for key in _ready(selector):
            connection = key.data
            if connection.answered():
                now = time.perf_counter()
                latencies_ms.append((now - connection.sent_at) * 1000)
                if now - began >= seconds:
                    return Loaded(len(latencies_ms), now - began, latencies_ms)
                connection.send(requests[sent % len(requests)])
                sent += 1


def _ready(selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    """Where something has come in. Raises ``LoadError``."""
    found = [key for key, _ in selector.select(_ANSWER_SECONDS)]
    if not found:
        raise LoadError(f"no answer within {_ANSWER_SECONDS:g} s")
    return found
