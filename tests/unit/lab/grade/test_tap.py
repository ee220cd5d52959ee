"""The proxy in front of the log server: what it forwards, sees, holds and cuts."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from select import select
from typing import Any

import pytest
import redis

from broker.position import Position
from lab.errors import LabError
from lab.grade.resp import Acknowledgements, Commands
from lab.grade.tap import Tap
from tests.support.logserver import LogServer
from tests.support.until import until

KEY = "lab:log"


class Tapped:
    """A tap to a log server with a stream of 1,000 entries, of which a group has read all."""

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.seen: list[Position] = []
        self.tap = Tap(lambda: self.target, KEY, self._see, lambda: 7)
        self.direct: Any = redis.Redis(port=port, decode_responses=True)
        self.direct.flushall()
        with self.direct.pipeline() as pipeline:
            for number in range(1, 1001):
                pipeline.xadd(KEY, {"op": "set"}, id=f"1-{number}")
            pipeline.xgroup_create(KEY, "g", id="0")
            pipeline.xreadgroup("g", "g", {KEY: ">"}, count=1000)
            pipeline.execute()

    def client(self, timeout_seconds: float = 5) -> Any:
        return redis.Redis(port=self.tap.port, socket_timeout=timeout_seconds, retry=None, decode_responses=True)

    def _see(self, positions: list[Position], at_us: int) -> None:
        assert at_us == 7
        self.seen += positions

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.tap.port), 5)

    def pending(self) -> int:
        return int(self.direct.xpending(KEY, "g")["pending"])


@pytest.fixture
def tapped(servers: Callable[[str], LogServer]) -> Iterator[Tapped]:
    made = Tapped(servers("valkey").port)
    yield made
    made.tap.close()
    made.direct.close()
    assert not made.tap._thread.is_alive()


def command(*arguments: str) -> bytes:
    parts = [argument.encode() for argument in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def talk(port: int, data: bytes, step: int) -> bytes:
    """Send bytes in small parts; return everything that is answered until the connection is closed."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender = threading.Thread(target=send_parts, args=(connection, data, step))
        sender.start()
        with suppress(ConnectionError):
            while chunk := connection.recv(2**16):
                answer += chunk
        sender.join()
    return answer


def send_parts(connection: socket.socket, data: bytes, step: int) -> None:
    with suppress(ConnectionError):  # cut
        for at in range(0, len(data), step):
            connection.sendall(data[at : at + step])


@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_commands_are_read_however_they_are_split(step: int) -> None:
    parts = [
        ("PING",),
        ("xack", KEY, "g", "1-1", "1-2"),
        ("SET", "k", "x" * 2000),
        ("MULTI",),
        ("XACK", KEY, "g", "1-3"),
    ]
    data = b"PING inline\r\n" + b"".join(command(*part) for part in parts) + b"\r\n" + command("EXEC")
    commands, found, end_at = Commands(), [], []
    for at in range(0, len(data), step):
        for end, arguments in commands.feed(data[at : at + step]):
            found.append(arguments)
            end_at.append(at + end)
    assert found == [
        [b"PING"],
        [b"XACK", KEY.encode(), b"g", b"1-1", b"1-2"],
        [b"SET"],
        [b"MULTI"],
        [b"XACK", KEY.encode(), b"g", b"1-3"],
        [b"EXEC"],
    ]
    assert end_at[0] == len(b"PING inline\r\n" + command("PING"))
    assert end_at[-1] == len(data)


@pytest.mark.parametrize("data", [b"*1\r\n:1\r\n", b"*x\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$" + b"9" * 60 + b"\r\n"])
def test_nothing_is_read_after_a_wrong_header(data: bytes) -> None:
    assert not list(Commands().feed(data + command("PING")))


def test_of_an_endless_line_or_value_nothing_is_kept() -> None:
    for start in (b"PING ", b"*2\r\n$3\r\nSET\r\n$9999999\r\n"):
        commands = Commands()
        for chunk in [start, *[b"x" * 2**16] * 10]:
            assert not list(commands.feed(chunk))
        assert len(commands._header) + len(commands._bulk or b"") < 1000


def test_acknowledgements_in_a_transaction_count_when_it_is_executed() -> None:
    of = Acknowledgements(KEY).of
    ack = [b"XACK", KEY.encode(), b"g", b"1-1"]
    assert of(ack) == [b"1-1"]
    assert of([b"XACK", b"other", b"g", b"1-1"]) == []
    assert [of([b"MULTI"]), of(ack), of(ack), of([b"EXEC"])] == [[], [], [], [b"1-1", b"1-1"]]
    assert [of([b"MULTI"]), of(ack), of([b"DISCARD"]), of([b"EXEC"])] == [[], [], [], []]


@pytest.mark.parametrize("step", [1, 100, 10**6])
def test_nothing_is_lost_or_reordered(tapped: Tapped, step: int) -> None:
    value = "v" * (100_000 if step > 1 else 100)
    data = b"".join(command("RPUSH", "list", str(number)) for number in range(100))
    data += command("XACK", KEY, "g", "1-1", "nonsense", "1-2") + command("XACK", KEY, "g", "1-2")
    data += command("SET", "large", value) + command("GET", "large") + b"PING\r\n" + command("QUIT")
    expected = b"".join(b":%d\r\n" % (number + 1) for number in range(100))
    answer = talk(tapped.tap.port, data, step)
    assert answer.startswith(expected + b"-")  # the server refuses the wrong ID
    assert answer.endswith(b":1\r\n+OK\r\n$%d\r\n%s\r\n+PONG\r\n+OK\r\n" % (len(value), value.encode()))
    assert tapped.direct.lrange("list", 0, -1) == [str(number) for number in range(100)]
    assert tapped.seen == [Position(1, 1), Position(1, 2), Position(1, 2)]


def test_a_client_that_does_not_read_is_made_to_wait(tapped: Tapped) -> None:
    tapped.direct.set("large", "v" * 2**20)
    data = command("GET", "large") * 60 + command("ECHO", "x" * 1000) * 1000 + command("QUIT")
    with tapped.raw() as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        until(lambda: any(len(pair.to_client) >= 2**16 for pair in list(tapped.tap._pairs)))
        assert tapped.client().ping()  # others are served
        assert all(len(pair.to_client) + len(pair.to_server) < 2**18 for pair in list(tapped.tap._pairs))
        size = 0
        while chunk := connection.recv(2**20):
            size += len(chunk)
        sender.join()
    assert size == 60 * (2**20 + len("$1048576\r\n\r\n")) + 1000 * (1000 + len("$1000\r\n\r\n")) + len("+OK\r\n")


def test_replies_are_held_from_an_acknowledgement_on(tapped: Tapped) -> None:
    trap = tapped.tap.hold_at(3)
    client, other = tapped.client(0.3), tapped.client(0.3)
    assert client.xack(KEY, "g", "1-1", "1-2") == 2
    assert not trap.wait(0)
    with pytest.raises(redis.TimeoutError):
        client.xack(KEY, "g", "1-3")
    assert trap.wait(5)
    until(lambda: tapped.pending() == 997)
    with pytest.raises(redis.TimeoutError):
        other.ping()
    with tapped.raw() as waiting:
        waiting.sendall(command("SET", "sent", "1"))
        until(lambda: tapped.direct.get("sent"))
        assert not select([waiting], [], [], 0.05)[0]
        trap.release()
        assert waiting.recv(100) == b"+OK\r\n"
    assert other.ping()
    assert tapped.seen == [Position(1, 1), Position(1, 2), Position(1, 3)]


def test_an_acknowledgement_in_a_transaction_is_held_at_its_end(tapped: Tapped) -> None:
    trap = tapped.tap.hold_at(1)
    with tapped.client(0.3).pipeline(transaction=True) as pipeline, pytest.raises(redis.TimeoutError):
        pipeline.xack(KEY, "g", "1-1").execute()
    assert trap.wait(5)
    until(lambda: tapped.pending() == 999)


def test_what_a_killed_client_has_sent_still_arrives(tapped: Tapped) -> None:
    trap = tapped.tap.hold_at(500)
    connection = tapped.raw()
    connection.sendall(b"".join(command("XACK", KEY, "g", f"1-{number}") for number in range(1, 501)))
    assert trap.wait(5)
    connection.close()
    until(lambda: tapped.pending() == 500)
    until(lambda: not tapped.tap._pairs)


@pytest.mark.parametrize("transaction", [False, True])
def test_an_acknowledgement_is_cut(tapped: Tapped, transaction: bool) -> None:
    trap = tapped.tap.cut_at(2)
    before = command("SET", "before", "1") + command("XACK", KEY, "g", "1-1")
    cut = command("XACK", KEY, "g", "1-2")
    if transaction:
        cut = command("MULTI") + cut + command("EXEC")
    talk(tapped.tap.port, before + cut + command("SET", "after", "1"), 10**6)
    assert trap.wait(5)
    until(lambda: tapped.direct.get("before"))
    until(lambda: tapped.pending() == 999)
    until(lambda: not tapped.tap._pairs)
    assert tapped.client().xack(KEY, "g", "1-2") == 1
    assert tapped.direct.get("after") is None
    assert tapped.seen == [Position(1, 1), Position(1, 2)]


def test_a_new_trap_ends_the_one_before(tapped: Tapped) -> None:
    first = tapped.tap.hold_at(1)
    with pytest.raises(redis.TimeoutError):
        tapped.client(0.2).xack(KEY, "g", "1-1")
    assert first.wait(5)
    tapped.tap.cut_at(2)
    assert tapped.client().xack(KEY, "g", "1-2") == 1
    tapped.tap.hold_at(1).release()
    assert tapped.client().xack(KEY, "g", "1-3") == 1


def test_connections_are_cut(tapped: Tapped) -> None:
    with tapped.raw() as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"
        tapped.tap.cut()
        assert connection.recv(100) == b""
    assert tapped.client().ping()


def test_a_connection_goes_silent_and_stays_open(tapped: Tapped) -> None:
    with tapped.raw() as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"
        tapped.tap.silence()
        connection.sendall(b"PING\r\n")
        assert tapped.client().ping(), "the tap has read what was sent before"
        assert not select([connection], [], [], 0)[0]
        tapped.tap.cut()
        until(lambda: select([connection], [], [], 0)[0])


def test_without_a_log_server_the_client_is_closed(tapped: Tapped) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        unused = gone.getsockname()
    reachable, tapped.target = tapped.target, unused
    with pytest.raises(redis.ConnectionError):
        tapped.client().ping()
    tapped.tap._target = raise_lab_error
    with pytest.raises(redis.ConnectionError):
        tapped.client().ping()
    tapped.tap._target = lambda: reachable
    assert tapped.client().ping()


def raise_lab_error() -> tuple[str, int]:
    raise LabError("no master")


def test_more_connections_than_64_are_closed(tapped: Tapped) -> None:
    clients = [tapped.client() for _ in range(65)]
    for client in clients[:64]:
        assert client.ping()
    with pytest.raises(redis.ConnectionError):
        clients[64].ping()
    clients[0].close()
    until(lambda: len(tapped.tap._pairs) < 64)
    assert tapped.client().ping()


def test_a_thousand_connections_pass(tapped: Tapped) -> None:
    started = time.monotonic()
    for number in range(1, 1001):
        with tapped.raw() as connection:
            connection.sendall(command("XACK", KEY, "g", f"1-{number}"))
            assert connection.recv(100) == b":1\r\n"
    assert time.monotonic() - started < 10
    assert tapped.seen == [Position(1, number) for number in range(1, 1001)]
    assert tapped.pending() == 0
