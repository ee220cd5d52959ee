"""A TCP proxy that delays what a server sends, such as the replication stream of a primary to its replica."""

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

_CHUNK_BYTES = 64 * 2**10
_CHUNKS_MAX = 10_000  # on their way over one connection; beyond that the server has to wait
_CONNECT_SECONDS = 5.0
_HOST = "127.0.0.1"


class DelayingProxy:
    """Passes on what the server sends when ``delay_seconds`` have passed, in order; what a client sends, immediately.

    ``delay_seconds`` can be changed at any time, and applies to what arrives from then on.
    """

    def __init__(self, server_port: int, delay_seconds: float) -> None:
        self.delay_seconds = delay_seconds
        self._server = (_HOST, server_port)
        self._listener = socket.create_server((_HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextmanager
    def running(cls, server_port: int, delay_seconds: float) -> Iterator[Self]:
        found = cls(server_port, delay_seconds)
        try:
            yield found
        finally:
            found.close()

    def cut(self) -> None:
        """Break all connections, drop what is on its way, and accept no more until ``mend``."""
        with self._lock:
            self._is_cut = True
            broken, self._connections = self._connections, set()
        for connection in broken:
            _break(connection)

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        _break(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        chunks: queue.Queue[tuple[float, bytes]] = queue.Queue(_CHUNKS_MAX)
        with client, suppress(OSError), socket.create_connection(self._server, _CONNECT_SECONDS) as server:
            server.settimeout(None)
            self._register(client, server)
            threads = [
                threading.Thread(target=_forward, args=(client, server), daemon=True),
                threading.Thread(target=self._receive, args=(server, chunks), daemon=True),
                threading.Thread(target=_deliver, args=(chunks, client), daemon=True),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with self._lock:
                self._connections -= {client, server}

    def _register(self, *connections: socket.socket) -> None:
        with self._lock:
            if self._is_cut:
                raise ConnectionError("the proxy is cut")
            self._connections.update(connections)
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _receive(self, server: socket.socket, chunks: "queue.Queue[tuple[float, bytes]]") -> None:
        chunk = b"start"
        while chunk:
            try:
                chunk = server.recv(_CHUNK_BYTES)
            except OSError:
                chunk = b""
            chunks.put((time.monotonic() + self.delay_seconds, chunk))


def _forward(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError):
        while chunk := client.recv(_CHUNK_BYTES):
            server.sendall(chunk)
    with suppress(OSError):
        server.shutdown(socket.SHUT_WR)


def _deliver(chunks: "queue.Queue[tuple[float, bytes]]", client: socket.socket) -> None:
    is_open = True
    chunk = b"start"
    while chunk:
        due, chunk = chunks.get()
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            if chunk and is_open:
                client.sendall(chunk)
        except OSError:
            is_open = False  # the server's end is still read, until it closes too
    _break(client)


def _break(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
