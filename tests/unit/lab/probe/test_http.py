"""The target for anything over HTTP, against a real server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import pytest

from lab.probe import http
from lab.probe.instrument import Limits, run
from lab.probe.target import NotNow, TargetError
from tests.support.http import serving


@dataclass
class Server:
    """A store of texts by path. ``status``: what it answers to everything, if not 0."""

    url: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    status: int = 0

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        self.tokens.add(request.headers["Authorization"])
        body = request.rfile.read(int(request.headers.get("Content-Length", 0))).decode()
        if self.status:
            return self.status, b"<no>"
        if request.command in {"PUT", "POST"}:
            self.texts[request.path] = body
        if request.path not in self.texts:
            return 404, b""
        found = self.texts.pop(request.path) if request.command == "DELETE" else self.texts[request.path]
        return 200, found.encode()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    with serving(found.answer) as url:
        found.url = url
        yield found


def test_a_number_is_written_read_and_removed(server: Server) -> None:
    writer = http.node(f"PUT {server.url}/kv/{{key}}", None)
    reader = http.node(f"GET {server.url}/kv/{{key}}", "secret")
    assert reader.read(["k0001"]) == ({}, True, 1)
    writer.write("k0001", 7)
    assert server.texts == {"/kv/lab_probe_k0001": "7"}
    assert reader.read(["k0001", "k0002"]) == ({"k0001": 7}, True, 2)
    writer.remove()
    assert server.texts == {}
    assert server.tokens == {None, "Bearer secret"}
    assert "secret" not in reader.name


def test_a_body_and_the_field_of_the_answer_can_be_given(server: Server) -> None:
    body = '{"data": [{"name": "{key}", "value": "{number}"}]}'
    writer = http.node(f"POST {server.url}/kv/{{key}} {body}", None)
    writer.write("k0001", 7)
    assert json.loads(server.texts["/kv/lab_probe_k0001"]) == {"data": [{"name": "lab_probe_k0001", "value": "7"}]}
    assert http.node(f"GET {server.url}/kv/{{key}} data.0.value", None).read(["k0001"]).numbers == {"k0001": 7}


def test_keys_of_an_earlier_run_are_removed(server: Server) -> None:
    server.texts = {f"/lab_probe_k000{index}": "1" for index in range(1, 6)} | {"/own": "1"}
    http.node(f"PUT {server.url}/{{key}}", None).remove()
    assert server.texts == {"/own": "1"}


def test_an_overloaded_server_is_tried_again_and_a_refusal_is_not(server: Server) -> None:
    reader = http.node(f"GET {server.url}/{{key}}", None)
    server.status = 503
    with pytest.raises(NotNow, match="answered 503"):
        reader.read(["k0001"])
    server.status = 401
    with pytest.raises(TargetError, match="answered 401: <no>"):
        reader.read(["k0001"])


def test_an_endless_answer_is_refused(server: Server) -> None:
    server.texts["/lab_probe_k0001"] = "1" * 2**21
    with pytest.raises(TargetError, match="more than 1,048,576 bytes"):
        http.node(f"GET {server.url}/{{key}}", None).read(["k0001"])


def test_a_server_that_is_gone_does_not_answer() -> None:
    with pytest.raises(NotNow, match=r"http://127.0.0.1:1 does not answer"):
        http.node("GET http://127.0.0.1:1/{key}", None).read(["k0001"])


@pytest.mark.parametrize("text", ["", "seven", '{"value": 7}', "[1]", "1e400", "NaN"])
def test_an_answer_without_the_number_is_one_sentence(server: Server, text: str) -> None:
    server.texts["/lab_probe_k0001"] = text
    with pytest.raises(TargetError, match="must answer with the number and nothing else"):
        http.node(f"GET {server.url}/{{key}}", None).read(["k0001"])


@pytest.mark.parametrize(
    "address",
    [
        "",
        "PUT",
        "POST http://a/kv {key}",
        "GET /{key}",
        "GET http://a/",
        "DELETE http://a/{key}",
        "get http://a/{key}",
        "GET ftp://a",
    ],
)
def test_an_invalid_template_is_one_sentence(address: str) -> None:
    with pytest.raises(TargetError, match="is not of a form such as"):
        http.node(address, None)


def test_a_run_over_http(server: Server) -> None:
    writer, reader = (http.node(f"{method} {server.url}/{{key}}", None) for method in ("PUT", "GET"))
    found = run(writer, [reader], Limits(writes_per_second=100.0, seconds=0.3))
    assert (found.ended, found.not_removed, len(found.replicas[0].brackets)) == ("", "", 30)
    assert all(one.high is not None for one in found.replicas[0].brackets)
    assert server.texts == {}
    for target in (writer, reader):
        target.close()
