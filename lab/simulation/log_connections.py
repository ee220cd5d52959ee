"""Connections of nodes to log servers, below redis-py, without sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol
from unittest.mock import patch

import redis
from redis import exceptions

from broker import tls
from lab.simulation.network import Network, Way
from lab.simulation.scheduler import Mailbox, Process


class Server(Protocol):
    """A log server or a Sentinel. A session is the server's end of a connection."""

    name: str
    is_up: bool
    is_frozen: bool
    incarnation: int
    backlog: list[Callable[[], None]]  # what arrives while it is frozen

    def open(self, answer: Callable[[Any], None], client: Process, /) -> Any: ...
    def execute(self, session: Any, commands: Sequence[Sequence[bytes]]) -> None: ...
    def close(self, session: Any) -> None: ...


class LogConnections:
    """All connections, and the servers by their ports."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.servers: dict[int, Server] = {}
        self.open: dict[Channel, None] = {}

    def end(self, process: Process) -> None:
        """Close those of a node whose process has ended."""
        for channel in [channel for channel in self.open if channel.client is process]:
            channel.close()

    def end_server(self, server: Server) -> None:
        """Break those to a server whose process has ended."""
        for channel in [channel for channel in self.open if channel.server is server]:
            channel.reset()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let redis-py use these connections."""
        with ExitStack() as stack:
            stack.enter_context(patch.object(Transport, "connections", self, create=True))
            stack.enter_context(patch.object(tls, "shared", lambda _: Transport))
            stack.enter_context(patch.object(tls, "shutdown", lambda channel: channel.shutdown()))
            yield


class Channel:
    """A node's connection to a log server, at both ends."""

    def __init__(self, connections: LogConnections, client: Process, server: Server) -> None:
        self._connections, self.client, self.server = connections, client, server
        network = connections.network
        self._incarnation = server.incarnation
        self._to_server = Way(network, client.name, server.name)
        self._to_client = Way(network, server.name, client.name)
        self._session = server.open(self._answer, client)
        connections.open[self] = None
        self._unsent: list[Any] = []
        self._executing = False
        self._arrived: Mailbox[tuple[Any] | None] = Mailbox(network.scheduler)  # replies, and ``None`` at the end
        self.is_closed = False  # by the client
        self.is_broken = False  # as the client has noticed

    def send(self, commands: Sequence[Sequence[bytes]]) -> None:
        """Raise ``OSError`` if the connection is known to be broken."""
        if self.is_broken or self.is_closed:
            raise ConnectionResetError(104, "Connection reset by peer")
        if self.client.is_alive:
            self._to_server.send(lambda: self._execute(commands))

    def receive(self, timeout_seconds: float | None) -> Any:
        """Return the next reply. Raises ``OSError``, of which ``TimeoutError`` is one."""
        if not self.can_receive(timeout_seconds):
            raise TimeoutError("timed out")
        found = self._arrived.take(0)
        if self.is_broken or found is None:
            raise ConnectionResetError(104, "Connection reset by peer")
        return found[0]

    def can_receive(self, timeout_seconds: float | None) -> bool:
        """Wait for a reply or the end of the connection."""
        return self.is_broken or self._arrived.arrives(timeout_seconds)

    def shutdown(self, _how: int = 0) -> None:
        self._break()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            # What was sent before is still executed.
            self._to_server.send(self._forget)

    def reset(self) -> None:
        """Break the connection at the server, as the end of its process does; the client is told."""
        self._to_client.send(self._break)

    def _break(self) -> None:
        self.is_broken = True
        self._arrived.put(None)

    def _forget(self) -> None:
        self._connections.open.pop(self, None)
        if self.server.is_frozen:  # it executes what was sent before, once it is thawed
            self.server.backlog.append(self._forget)
        elif self._is_current():
            self.server.close(self._session)

    def _is_current(self) -> bool:
        return self.server.is_up and self.server.incarnation == self._incarnation

    def _execute(self, commands: Sequence[Sequence[bytes]]) -> None:
        if not self._is_current():
            self.reset()
            return
        if self.server.is_frozen:
            self.server.backlog.append(lambda: self._execute(commands))
            return
        self._executing = True
        try:
            self.server.execute(self._session, commands)
        finally:
            self._executing = False
        self._flush()

    def _answer(self, reply: Any) -> None:
        self._unsent.append(reply)
        if not self._executing:
            self._flush()

    def _flush(self) -> None:
        if self._unsent:
            replies, self._unsent = self._unsent, []
            self._to_client.send(lambda: self._arrived.put(*((reply,) for reply in replies)))


class Transport(redis.Connection):
    """A connection of redis-py without a socket. Its commands are lists of bytes."""

    connections: LogConnections  # of the world that is installed

    def _connect(self) -> Any:
        network = self.connections.network
        scheduler, process = network.scheduler, network.scheduler.process
        server = self.connections.servers.get(self.port)
        if server is None:
            raise ConnectionRefusedError(111, "Connection refused")
        name = server.name
        answers: Mailbox[bool] = Mailbox(scheduler)
        network.send(process.name, name, lambda: network.send(name, process.name, lambda: answers.put(server.is_up)))
        is_up = answers.take(float(self.socket_connect_timeout or 2))
        if is_up is None:
            raise TimeoutError("timed out")
        if not is_up or not server.is_up:
            raise ConnectionRefusedError(111, "Connection refused")
        return Channel(self.connections, process, server)

    _sock: Any

    def connect(self) -> None:
        if self._sock is None:
            super().connect()  # type: ignore[no-untyped-call]

    def pack_command(self, *args: Any) -> Any:
        return [self._encoded(args)]

    def pack_commands(self, commands: Any) -> Any:
        return [self._encoded(command) for command in commands]

    def _encoded(self, args: Sequence[Any]) -> list[bytes]:
        first, *rest = args
        words = [*first.split(), *rest] if isinstance(first, str) and " " in first else args
        encode: Callable[[Any], bytes] = self.encoder.encode
        return [word.encode() if type(word) is str else encode(word) for word in words]

    def send_command(self, *args: Any, **_: Any) -> None:
        self.send_packed_command([self._encoded(args)])

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ARG002 - as in redis-py
        if not self._sock:
            self.connect_check_health(check_health=False)
        try:
            self._sock.send(command)
        except OSError as error:
            self._drop()
            raise exceptions.ConnectionError(
                f"Error {error.errno} while writing to socket. {error.strerror}."
            ) from None

    def _drop(self) -> None:
        self.disconnect()  # type: ignore[no-untyped-call]

    def can_read(self, timeout: float = 0) -> bool:
        if not self._sock:
            self.connect()
        return bool(self._sock.can_receive(timeout or 0))

    def read_response(
        self, disable_decoding: bool = False, *, timeout: Any = None, disconnect_on_error: bool = True, **_: Any
    ) -> Any:
        channel = self._sock
        if channel is None:
            raise exceptions.ConnectionError("Not connected")
        try:
            found = channel.receive(timeout if isinstance(timeout, int | float) else self.socket_timeout)
        except TimeoutError:
            if disconnect_on_error:
                self._drop()
            raise exceptions.TimeoutError(f"Timeout reading from {self.host}:{self.port}") from None
        except OSError as error:
            if disconnect_on_error:
                self._drop()
            raise exceptions.ConnectionError(
                f"Error while reading from {self.host}:{self.port} : {error.args}"
            ) from None
        except BaseException:
            self._drop()
            raise
        if isinstance(found, exceptions.RedisError):
            raise found
        return _decoded(found) if self.encoder.decode_responses and not disable_decoding else found


def _decoded(found: Any) -> Any:
    if type(found) is bytes:
        return found.decode("utf-8", "replace")
    if type(found) is list:
        return [item.decode("utf-8", "replace") if type(item) is bytes else _decoded(item) for item in found]
    return found
