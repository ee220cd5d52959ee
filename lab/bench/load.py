"""A closed loop of requests on raw sockets, which use so little CPU that the result reflects only the servers."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlsplit

from broker.stats import quantile
from lab.errors import LabError

_ANSWER_SECONDS = 30.0
_CHUNK = 65536
_END = b"\r\n\r\n"


class LoadError(LabError):
    """Raised when a server does not respond, or with a status other than 200."""


@dataclass(frozen=True)
class Loaded:
    seconds: float
    latencies_ms: list[float]

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def quantile_ms(self, q: float) -> float:
        return quantile(self.latencies_ms, q)


def request(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def run(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> Loaded:
    """Send ``requests`` in turn, repeatedly, on this number of connections. Raises ``LoadError``."""
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        sockets = [stack.enter_context(connected(url)) for _ in range(connections)]
        turn = cycle(requests)
        latencies_ms = []
        began = time.perf_counter()
        for one in sockets:
            connection = _Connection(one)
            selector.register(one, selectors.EVENT_READ, connection)
            connection.send(next(turn))
        while True:
            for key in _ready(selector):
                connection = key.data
                if connection.answered():
                    now = time.perf_counter()
                    latencies_ms.append((now - connection.sent_at) * 1000)
                    if now - began >= seconds:
                        return Loaded(now - began, latencies_ms)
                    connection.send(next(turn))


def answers(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Yield once for each of these connections, as soon as its response arrives. Raises ``LoadError``."""
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            selector.register(one, selectors.EVENT_READ, _Connection(one))
        while selector.get_map():
            for key in _ready(selector):
                if key.data.answered():
                    selector.unregister(key.fileobj)
                    yield


@contextmanager
def paced(url: str, requests: Sequence[bytes], per_second: float) -> Iterator[None]:
    """Send requests at this rate on one connection during the block, more slowly only while a response is late."""
    over = threading.Event()

    def send() -> None:
        with connected(url) as one:
            connection = _Connection(one)
            due = time.perf_counter()
            for raw in cycle(requests):
                if over.wait(max(0.0, due - time.perf_counter())):
                    return
                connection.send(raw)
                while not connection.answered():
                    pass
                due += 1 / per_second

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(send)
        try:
            yield
        finally:
            over.set()
    running.result()


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    found = socket.create_connection((parts.hostname, parts.port), timeout=_ANSWER_SECONDS)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


@dataclass
class _Connection:
    _socket: socket.socket
    _buffer: bytes = b""
    sent_at: float = 0.0

    def send(self, raw: bytes) -> None:
        self.sent_at = time.perf_counter()
        self._socket.sendall(raw)

    def answered(self) -> bool:
        chunk = self._socket.recv(_CHUNK)
        if not chunk:
            raise LoadError("the server closed a connection without an answer")
        self._buffer += chunk
        end = self._buffer.find(_END)
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + len(_END) + length:
            return False
        if b" 200 " not in head[:16]:
            raise LoadError(self._buffer[:500].decode(errors="replace"))
        self._buffer = b""
        return True


def _ready(selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    found = [key for key, _ in selector.select(_ANSWER_SECONDS)]
    if not found:
        raise LoadError(f"no answer within {_ANSWER_SECONDS:g} s")
    return found
