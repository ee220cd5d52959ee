"""A proxy between a graded program and the log server, which sees, holds and cuts its acknowledgements."""

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from broker.errors import LogError
from broker.position import Position
from lab.errors import LabError
from lab.grade.resp import Acknowledgements, Commands, positions
from lab.grade.trap import Trap

_CONNECTIONS_MAX = 64
_BUFFER_BYTES = 64 * 2**10  # in each direction; beyond that the sender has to wait
_HOST = "127.0.0.1"
_DO_SECONDS = 10.0


class _Pair:
    """A client's connection and the one to the log server, with what is on its way from each to the other."""

    def __init__(self, client: socket.socket, server: socket.socket, key: str) -> None:
        self.client, self.server = client, server
        self.to_server, self.to_client = bytearray(), bytearray()
        self.commands, self.acknowledgements = Commands(), Acknowledgements(key)
        self.is_connected = False
        self.client_ended = False  # what it sent before still goes to the log server, whose replies are dropped
        self.server_ended = False
        self.is_silent = False  # nothing moves any more, in either direction
        self.trap: Trap | None = None  # reached when `to_server` is sent


class Tap:
    """Listens on a free port of 127.0.0.1 and forwards connections. One thread does all the work.

    An acknowledgement in MULTI counts at its EXEC; one in a Lua script is not seen.
    """

    def __init__(
        self,
        target: Callable[[], tuple[str, int]],
        key: str,
        on_acknowledge: Callable[[list[Position], int], None],
        now_us: Callable[[], int],
    ) -> None:
        """``target``: where to connect now; must return at once, or raise ``LabError`` or ``LogError``.

        ``key``: of the stream. ``on_acknowledge`` gets entries, and the time, just before the log server does.
        """
        self._target = target
        self._key = key
        self._on_acknowledge = on_acknowledge
        self._now_us = now_us
        self._listener = socket.create_server((_HOST, 0), backlog=_CONNECTIONS_MAX)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._pairs: set[_Pair] = set()
        self._trap: Trap | None = None
        self._is_held = False
        self._is_closed = False
        self._actions: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        for listening in (self._listener, self._woken):
            self._selector.register(listening, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)
        self._thread.start()

    # -- for other threads --------------------------------------------------------------------------------------------
    def hold_at(self, count: int) -> Trap:
        """Withhold the reply to that acknowledgement, and all later replies on every connection, until it is released.

        Replies to earlier commands that have not arrived yet are withheld as well.
        """
        return self._set(Trap("hold", count, self._release))

    def cut_at(self, count: int) -> Trap:
        """Close that acknowledgement's connection instead of forwarding it."""
        return self._set(Trap("cut", count, self._release))

    def cut(self) -> None:
        """Close all connections; new ones are accepted."""
        self._do(self._drop_all)

    def silence(self) -> None:
        """Let every connection stay open and silent for ever, as after a lost network path; new ones work."""
        self._do(self._silence_all)

    def close(self) -> None:
        self._do(lambda: setattr(self, "_is_closed", True))
        self._thread.join(_DO_SECONDS)

    def _set(self, trap: Trap) -> Trap:
        def replace() -> None:
            self._let_through()
            self._trap = trap

        self._do(replace)
        return trap

    def _release(self, trap: Trap) -> None:
        self._do(lambda: self._let_through() if self._trap is trap else None)

    def _do(self, action: Callable[[], object]) -> None:
        """Perform the action in the tap's thread; return when it is done, or the tap is closed."""
        if threading.current_thread() is self._thread:
            action()
            return
        done = threading.Event()
        self._actions.append((action, done))
        with suppress(OSError):
            self._wake.send(b".")
        while self._thread.is_alive() and not done.wait(0.1):
            pass

    # -- the thread ---------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            while not self._is_closed:
                for key, events in self._selector.select():
                    self._handle(key.fileobj, key.data, events)
        finally:
            self._drop_all()
            for opened in (self._selector, self._listener, self._woken, self._wake):
                opened.close()

    def _handle(self, ready: Any, pair: _Pair | None, events: int) -> None:
        if ready is self._woken:
            self._woken.recv(1024)
            while self._actions:
                action, done = self._actions.popleft()
                action()
                done.set()
        elif pair is None:
            self._accept()
        elif pair in self._pairs:  # not dropped by an event just before
            try:
                self._move(pair, ready, events)
            except OSError:
                self._drop(pair)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # it is gone already
            return
        if len(self._pairs) >= _CONNECTIONS_MAX:
            client.close()
            return
        server = socket.socket()
        pair = _Pair(client, server, self._key)
        self._pairs.add(pair)
        try:
            for connection in (client, server):
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(BlockingIOError):
                server.connect(self._target())
            self._watch(pair)
        except (OSError, LabError, LogError):
            self._drop(pair)

    def _move(self, pair: _Pair, ready: Any, events: int) -> None:
        if ready is pair.server and events & selectors.EVENT_WRITE and not pair.is_connected:
            if (problem := pair.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) != 0:
                raise OSError(problem, "the log server cannot be reached")
            pair.is_connected = True
        if events & selectors.EVENT_READ:
            if ready is pair.client:
                self._read_client(pair)
            else:
                self._read_server(pair)
        self._go_on(pair)

    def _read_client(self, pair: _Pair) -> None:
        try:
            data = pair.client.recv(_BUFFER_BYTES)
        except ConnectionError:  # it was killed; what it sent before counts
            data = b""
        if not data:
            self._end_client(pair)
            return
        sent = 0
        for end, command in pair.commands.feed(data):
            acknowledged = pair.acknowledgements.of(command)
            if acknowledged and not self._acknowledge(pair, acknowledged):
                pair.to_server += data[:sent]
                self._end_client(pair)
                return
            sent = end
        pair.to_server += data

    def _acknowledge(self, pair: _Pair, names: list[bytes]) -> bool:
        """Take note of an acknowledgement, and return whether to forward it."""
        trap = self._trap
        goes_off = trap is not None and 0 < trap.left <= len(names)
        if trap is not None:
            trap.left -= len(names)
        if trap is not None and goes_off and trap.kind == "cut":
            self._trap = None
            trap.reached.set()
            return False
        if goes_off:
            self._is_held, pair.trap = True, trap
        if entries := positions(names):
            self._on_acknowledge(entries, self._now_us())
        return True

    def _read_server(self, pair: _Pair) -> None:
        data = pair.server.recv(_BUFFER_BYTES)
        if not data:
            pair.server_ended = True
        elif not pair.client_ended:
            pair.to_client += data

    def _go_on(self, pair: _Pair) -> None:
        """Send what can be sent, and wait for what is missing."""
        if pair.is_silent:
            self._watch(pair)
            return
        try:
            if pair.is_connected and pair.to_server:
                _send(pair.server, pair.to_server)
            if not self._is_held and pair.to_client:
                _send(pair.client, pair.to_client)
            if pair.client_ended and pair.is_connected and not pair.to_server:
                pair.server.shutdown(socket.SHUT_WR)  # not closed: a reset could overtake what was sent
        except OSError:
            pair.server_ended = True
            pair.to_client.clear()
        if pair.trap is not None and not pair.to_server:
            pair.trap.reached.set()
            pair.trap = None
        if pair.server_ended and not pair.to_client:
            self._drop(pair)
        else:
            self._watch(pair)

    def _watch(self, pair: _Pair) -> None:
        if pair.is_silent:
            self._select(pair, pair.client, reads=False, writes=False)
            self._select(pair, pair.server, reads=False, writes=False)
            return
        reads = not pair.client_ended and not pair.server_ended and len(pair.to_server) < _BUFFER_BYTES
        writes = not pair.client_ended and not self._is_held and bool(pair.to_client)
        self._select(pair, pair.client, reads, writes)
        drains = pair.client_ended or (not self._is_held and len(pair.to_client) < _BUFFER_BYTES)
        reads = pair.is_connected and not pair.server_ended and drains
        self._select(pair, pair.server, reads, not pair.is_connected or bool(pair.to_server))

    def _select(self, pair: _Pair, connection: socket.socket, reads: bool, writes: bool) -> None:
        events = selectors.EVENT_READ * reads | selectors.EVENT_WRITE * writes
        known = self._selector.get_map().get(connection) if connection.fileno() >= 0 else None
        if known is None and events and connection.fileno() >= 0:
            self._selector.register(connection, events, pair)
        elif known is not None and not events:
            self._selector.unregister(connection)
        elif known is not None and known.events != events:
            self._selector.modify(connection, events, pair)

    def _let_through(self) -> None:
        self._trap, self._is_held = None, False
        for pair in list(self._pairs):
            self._go_on(pair)

    def _end_client(self, pair: _Pair) -> None:
        pair.client_ended = True
        pair.to_client.clear()
        self._close(pair.client)

    def _drop(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        self._close(pair.client)
        self._close(pair.server)

    def _silence_all(self) -> None:
        for pair in self._pairs:
            pair.is_silent = True
            self._watch(pair)

    def _drop_all(self) -> None:
        for pair in list(self._pairs):
            self._drop(pair)

    def _close(self, connection: socket.socket) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()


def _send(connection: socket.socket, data: bytearray) -> None:
    with suppress(BlockingIOError):
        del data[: connection.send(data)]
