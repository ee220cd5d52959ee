"""The server of the console's page without a lab."""

from typing import Any

import pytest
from werkzeug.test import Client

from lab import page
from nodes.client.pages import HEADERS

RECORDING = b'{"now_ms": 1}\n'


@pytest.fixture
def http() -> Any:
    with page.server(RECORDING) as server:
        assert server.host == "127.0.0.1"
        yield Client(server.app)


def test_it_has_the_recording_and_the_console_with_its_headers(http: Any) -> None:
    found = http.get("/recording")
    assert (found.status_code, found.data, found.mimetype) == (200, RECORDING, "application/jsonl")
    index, script = http.get("/?replay"), http.get("/console/app.js")
    assert (index.mimetype, script.mimetype, b"<canvas" in index.data) == ("text/html", "text/javascript", True)
    assert http.get("/console/vendor/uPlot.min.css").status_code == 200
    for answer in (found, index, script):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", ["/app.js", "/index.html", "/events", "/console/", "/console/../app.js", "/status"])
def test_it_has_nothing_else(http: Any, path: str) -> None:
    assert http.get(path).status_code == 404


def test_it_refuses_other_methods_and_names_of_other_hosts(http: Any) -> None:
    assert http.post("/recording").status_code == 405
    assert http.get("/recording", headers={"Host": "evil.example"}).status_code == 400
    assert http.get("/recording", headers={"Host": "localhost:8123"}).status_code == 200
