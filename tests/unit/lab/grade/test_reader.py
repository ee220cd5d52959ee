"""The reader of a graded program, against servers that answer rightly, wrongly, late, or not at all."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest

from broker.position import Position
from lab.grade.answers import NoAnswer, Nonsense, Program, Value
from lab.grade.reader import Reader
from tests.support.http import serving
from tests.support.until import until

VERSION = {"position": "1-42", "version": 42, "epoch": 1}
VALUE = {"key": "k", "value": "v", "version": 7, "position": "1-42"}


@contextmanager
def answering(raw: bytes, pause_seconds: float = 0.0) -> Iterator[str]:
    """A server that answers every connection with these bytes, one at a time if there is a pause, and closes it."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while not over.is_set():
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    for part in [raw] if not pause_seconds else [bytes([byte]) for byte in raw]:
                        if not over.wait(pause_seconds):
                            try:
                                connection.sendall(part)
                            except OSError:
                                break

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            over.set()
            with socket.create_connection(("127.0.0.1", port)) as last:
                last.sendall(b"end")
            thread.join()


def http(status: int, body: Any, length: int | None = -1) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    length = len(raw) if length == -1 else length
    known = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 {status} x\r\n{known}\r\n".encode() + raw


def ask(raw: bytes, read: Callable[[Program], Any] = Program.position, *, pause_seconds: float = 0.0) -> Any:
    with answering(raw, pause_seconds) as url:
        program = Program(url, answer_seconds=0.5)
        try:
            return read(program)
        finally:
            program.close()


def value(program: Program) -> Value:
    return program.value("k")


@pytest.mark.parametrize("length", [-1, None])
def test_right_answers_are_read(length: int | None) -> None:
    assert ask(http(200, VERSION | {"more": [1]}, length)) == Position(1, 42)
    assert ask(http(200, VALUE, length), value) == Value(Position(1, 42), 7, "v")
    assert ask(http(200, VALUE | {"value": {"a": [1.5, None]}}), value).value == '{"a":[1.5,null]}'
    assert ask(http(404, {"position": "2-0"}, length), value) == Value(Position(2, 0), 0, None)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (http(200, b"<h1>\x1b[31mhello"), "is not JSON (Expecting value: line 1 column 1 (char 0)): <h1>·[31mhello"),
        (http(200, b"\xff"), "the body is not JSON"),
        (http(200, [1]), "the body is not a JSON object: [1]"),
        (http(200, {}), "position is not a text: {}"),
        (http(200, VERSION | {"position": 42}), "position is not a text"),
        (http(200, VERSION | {"position": "1-x"}), "a position looks like 1-42"),
        (http(200, VERSION | {"version": "42"}), "version is not a whole number below 10^15"),
        (http(200, VERSION | {"epoch": True}), "epoch is not a whole number below 10^15"),
        (http(200, VERSION | {"version": 41}), "epoch and version are not those of the position 1-42"),
        (http(404, VERSION), "only 200 and 503 are answers to it"),
        (http(302, VERSION), "only 200 and 503 are answers to it"),
        (http(200, b"x" * (2**20 + 1)), "the answer has more than 1,048,576 bytes: xxx"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_named(raw: bytes, said: str) -> None:
    with pytest.raises(Nonsense, match=r"^GET /version was answered with ...") as caught:
        ask(raw)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (http(200, VALUE | {"key": "other"}), "key is not 'k'"),
        (http(200, VALUE | {"version": 0}), "version is 0; a missing key is a 404"),
        (http(200, {name: VALUE[name] for name in ("key", "version", "position")}), "value is missing"),
        (http(404, b"not found"), "the body is not JSON"),
        (http(404, {"error": "missing"}), "position is not a text"),
        (http(400, {}), "only 200, 404 and 503 are answers to it"),
        (http(200, b'{"key":"k","value":"\\ud800","version":7,"position":"1-42"}'), "a text is not valid Unicode"),
    ],
)
def test_a_wrong_answer_about_a_key_is_named(raw: bytes, said: str) -> None:
    with pytest.raises(Nonsense, match=r"^GET /data/k was answered with ...") as caught:
        ask(raw, value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"hello\r\n", b"SSH-2.0 server\r\n\r\n", http(200, VERSION).replace(b"HTTP/1", b"HTTP/7")]
)
def test_what_is_not_http_is_named(raw: bytes) -> None:
    with pytest.raises(Nonsense, match=r"^GET /version was not answered in HTTP: "):
        ask(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "closed"),
        (b"HTT", "the connection was closed within an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "the connection was closed, perhaps within an answer"),
        (http(200, VERSION)[:-5], "the connection was closed within an answer"),
        (http(200, VERSION, None)[:-5], "the connection was closed, perhaps within an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{", "the connection was closed within an answer"),
        (http(500, b"<traceback>"), "GET /version was answered with 500: <traceback>"),
        (http(503, b""), "GET /version was answered with 503"),
    ],
)
def test_an_answer_that_a_kill_cuts_short_is_no_answer(raw: bytes, said: str) -> None:
    with pytest.raises(NoAnswer, match=said) as caught:
        ask(raw)
    assert caught.value.refused == (b" 503 " in raw)


def test_an_answer_in_drips_is_no_answer() -> None:
    began = time.monotonic()
    with pytest.raises(NoAnswer, match=r"no answer within 0.5 s"):
        ask(http(200, VERSION), pause_seconds=0.1)
    assert time.monotonic() - began < 2


def test_a_connection_that_is_refused_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="connection refused"):
        Program("http://127.0.0.1:9").position()


class Replica:
    """A replica whose answers a test changes."""

    def __init__(self) -> None:
        self.position = Position(1, 1)
        self.status = 200
        self.asked: set[str] = set()

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        request.protocol_version = "HTTP/1.1"  # announces to keep the connection, which the server closes all the same
        path = request.path
        self.asked.add(path)
        at = self.position
        known = {"position": str(at), "version": at.version, "epoch": at.epoch}
        if path != "/version":
            known |= {"key": unquote(path.removeprefix("/data/")), "value": "v"}
        return self.status, json.dumps(known).encode()


@contextmanager
def reading(replica: Replica, *keys: str, **options: Any) -> Iterator[Reader]:
    with serving(replica.answer) as url:
        reader = Reader(url, "mine", keys or ("k",), lambda: time.monotonic_ns() // 1000, Random(1), **options)
        reader.start()
        try:
            yield reader
        finally:
            reader.stop()


def test_every_key_is_read_whatever_its_name() -> None:
    replica = Replica()
    with reading(replica, "k", "a/b", "ü", "100%", "two words") as reader:
        paths = {"/version", "/data/k", "/data/a%2Fb", "/data/%C3%BC", "/data/100%25", "/data/two%20words"}
        until(lambda: replica.asked >= paths)
        reader.check()
        finals = reader.read_all(["a/b", "ü"])
    assert replica.asked == paths
    assert [(found.kind, found.key, found.value, found.position) for found in finals] == [
        ("final", "a/b", "v", Position(1, 1)),
        ("final", "ü", "v", Position(1, 1)),
    ]
    assert {found.session for found in reader.operations} == {0, 1, 2, -1}
    assert {(found.node, found.outcome, found.version) for found in reader.operations} == {("mine", "ok", 1)}
    assert all(found.invoked_us < found.returned_us for found in reader.operations)


def test_a_run_of_equal_polls_is_kept_as_its_first_and_last() -> None:
    replica = Replica()
    with reading(replica) as reader:
        until(lambda: len(reader.polls) == 2)
        first, last = reader.polls
        until(lambda: reader.polls[1] != last)
        replica.position = Position(1, 2)
        until(lambda: len(reader.polls) == 4)
    assert reader.polls[0] == first
    assert [poll.position for poll in reader.polls] == [Position(1, 1)] * 2 + [Position(1, 2)] * 2
    assert reader.position == Position(1, 2)


def test_nonsense_is_raised_at_the_next_check() -> None:
    replica = Replica()
    with reading(replica) as reader:
        until(lambda: reader.position)
        reader.check()
        replica.status = 404
        with pytest.raises(Nonsense, match="GET /version was answered with 404"):
            until(reader.check)


@pytest.mark.parametrize(("status", "refuses"), [(503, True), (500, False)])
def test_an_honest_stop_is_503_to_both_reads(status: int, *, refuses: bool) -> None:
    replica = Replica()
    with reading(replica) as reader:
        until(lambda: reader.position)
        assert not reader.refuses
        replica.status = status
        until(lambda: reader.position is None and [one.outcome for one in reader.operations[-1:]] == ["fail"])
        assert reader.polls[-1].words.startswith(f"GET /version was answered with {status}: ")
        assert until(lambda: reader.refuses) if refuses else not reader.refuses
        replica.status = 200
        until(lambda: reader.position and not reader.refuses)


def test_the_first_answer_since_a_moment_is_found() -> None:
    replica = Replica()
    with reading(replica) as reader:
        until(lambda: reader.position)
        replica.position = Position(1, 2)
        since_us = time.monotonic_ns() // 1000
        found = reader.first_since(since_us)
        assert (found.position, found.invoked_us >= since_us) == (Position(1, 2), True)
        replica.status = 503
        until(lambda: reader.position is None)
        found = reader.first_since(time.monotonic_ns() // 1000, timeout_seconds=0.05)
        assert (found.position, found.words[:20]) == (None, "GET /version was ans")


def test_reads_are_bounded() -> None:
    replica = Replica()
    with reading(replica, operations_max=5) as reader:
        until(lambda: len(reader.operations) >= 5)
        before = len(reader.operations)
        polled = reader.polls[-1]
        until(lambda: reader.polls[-1].invoked_us > polled.invoked_us + 50_000)
        assert len(reader.operations) <= 5 + 2
        assert len(reader.operations) - before <= 2
        assert len(reader.read_all(["k"])) == 1
