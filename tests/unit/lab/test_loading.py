"""A file of lines becomes batches, and what is not taken for now is sent again."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from lab import loading
from lab.errors import LabError
from lab.loading import Loaded, batches, load

Answer = tuple[int, dict[str, Any]]


def line(number: int) -> bytes:
    return json.dumps({"key": f"k{number}", "value": number}).encode()


def test_lines_keep_their_numbers_and_empty_ones_are_left_out() -> None:
    (found,) = batches(io.BytesIO(b"\n".join([line(1), b"", b"  ", line(4)])), skip=0)
    assert found == ([1, 4], [line(1), line(4)])


def test_what_is_skipped_counts() -> None:
    (found,) = batches(io.BytesIO(b"\n".join(map(line, range(1, 6)))), skip=3)
    assert found.numbers == [4, 5]


def test_a_batch_is_bounded_in_lines_and_in_bytes() -> None:
    many = list(batches(io.BytesIO(b"1\n" * (loading.LINES_MAX * 2 + 1)), skip=0))
    assert [len(batch.lines) for batch in many] == [loading.LINES_MAX, loading.LINES_MAX, 1]
    large = list(batches(io.BytesIO((b"x" * 2**19 + b"\n") * 5), skip=0))
    assert [len(batch.lines) for batch in large] == [2, 2, 1]


def test_a_line_that_no_batch_takes_is_named() -> None:
    with pytest.raises(LabError, match="line 2 is longer than"):
        list(batches(io.BytesIO(b"1\n" + b"x" * 5 * 2**20), skip=0))


def test_each_line_has_an_answer_and_the_refused_are_named() -> None:
    results = [{"position": "1-1"}, {"status": 422, "detail": "key: missing."}]
    with _primary(lambda _: (207, {"results": results})) as (url, keys):
        heard: list[int] = []
        found = load(io.BytesIO(line(1) + b"\n{}\n"), url, skip=0, on_batch=lambda _, size: heard.append(size))
    assert found == Loaded(acknowledged=1, refused=1, sentences=["line 2: key: missing."])
    assert len(keys) == 1
    assert heard == [len(line(1)) + 4]


def test_what_the_log_did_not_take_is_sent_again_under_the_same_write_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_PAUSE_SECONDS", 0.0)
    down = {"status": 503, "detail": "The log is down.", "outcome": "unknown"}
    answers: list[Answer] = [
        (503, down),
        (207, {"results": [{"position": "1-1"}, down]}),
        (200, {"results": [{"position": "1-1"}, {"position": "1-2"}]}),
    ]
    with _primary(lambda attempt: answers[attempt]) as (url, keys):
        found = load(io.BytesIO(line(1) + b"\n" + line(2)), url, skip=0, on_batch=lambda *_: None)
    assert found == Loaded(acknowledged=2)
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_where_it_is_in_vain_it_says_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_TRIES_SECONDS", 0.0)
    with (
        _primary(lambda _: (503, {"detail": "The log is down."})) as (url, _),
        pytest.raises(LabError, match=r"lines 8 to 9 were not .* The log is down\. .* --skip 7"),
    ):
        load(io.BytesIO(b"\n".join(map(line, range(1, 10)))), url, skip=7, on_batch=lambda *_: None)


@contextmanager
def _primary(answer: Callable[[int], Answer]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers the n-th request so, from 0; its URL, and the Idempotency-Key of each request."""
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = answer(len(keys))
            keys.append(self.headers["Idempotency-Key"])
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", keys
        finally:
            server.shutdown()
            thread.join()
