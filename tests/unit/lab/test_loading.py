"""A file of items becomes batches; a batch that the log does not accept is sent again."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import IO, Any

import pytest

from lab import loading
from lab.errors import LabError
from lab.loading import Loaded, batches, items
from tests.support.http import serving

Answer = tuple[int, dict[str, Any]]
A, B = b'{"key":"a","value":1}', b'{"key":"b","value":2}'


def load(file: IO[bytes], url: str, *, skip: int = 0, on_batch: Callable[[int], object] = lambda _: None) -> Loaded:
    found = Loaded()
    loading.load(file, url, found, skip=skip, on_batch=on_batch)
    return found


def line(number: int) -> bytes:
    return json.dumps({"key": f"k{number}", "value": number}).encode()


def test_lines_keep_their_numbers_and_empty_ones_are_skipped() -> None:
    assert list(items(io.BytesIO(b"\n".join([A, b"", b"  ", B])))) == [("line 1", A), ("line 4", B)]


def test_a_line_too_long_for_a_batch_is_named() -> None:
    with pytest.raises(LabError, match="line 2 is longer than"):
        list(items(io.BytesIO(b"1\n" + b"x" * 5 * 2**20)))


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (A + b"\r" + B + b"\n", {"line 1": A, "line 2": B}),
        (A + b"\r\n\r\n" + B, {"line 1": A, "line 3": B}),
        (
            A + b"\n" + A[:11] + b"\r" + A[11:] + b"\r\n" + B,
            {"line 1": A, "line 2": A[:11] + b" " + A[11:], "line 3": B},
        ),
        (b"\xef\xbb\xbf" + A + b"\n" + B + b"\n", {"line 1": A, "line 2": B}),
        (b"[" + A + b"," + B + b"]\n", {"line 1, item 1": A, "line 1, item 2": B}),
        (b"\xef\xbb\xbf [\n" + A + b"\n,\r\n" + B + b" ]", {"line 2, item 1": A, "line 4, item 2": B}),
        (b'[{"key":"a",\n "value":1}]', {"line 1, item 1": b'{"key":"a",  "value":1}'}),
        (b" [ ] ", {}),
    ],
)
def test_every_line_ending_is_read_and_an_array_too(content: bytes, sent: dict[str, bytes]) -> None:
    found = list(items(io.BytesIO(content)))
    assert found == list(sent.items())


def test_an_array_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.loading.ARRAY_BYTES_MAX", 100)
    with pytest.raises(LabError, match="an array has at most 100 bytes"):
        list(items(io.BytesIO(b"[" + b",".join([A] * 9) + b"]")))


def test_skipped_items_count() -> None:
    (found,) = batches(io.BytesIO(b"\n".join(map(line, range(1, 6)))), skip=3)
    assert found == (3, [("line 4", line(4)), ("line 5", line(5))])


def test_a_batch_is_bounded_in_lines_and_in_bytes() -> None:
    many = list(batches(io.BytesIO(b"1\n" * (loading.ITEMS_MAX * 2 + 1)), skip=0))
    assert [len(batch.items) for batch in many] == [loading.ITEMS_MAX, loading.ITEMS_MAX, 1]
    large = list(batches(io.BytesIO((b"x" * 2**19 + b"\n") * 5), skip=0))
    assert [len(batch.items) for batch in large] == [2, 2, 1]


def test_each_line_has_a_result_and_rejected_ones_are_named() -> None:
    results = [{"position": "1-1"}, {"status": 422, "detail": "key: missing."}]
    with _primary(lambda _: (207, {"results": results})) as (url, keys):
        heard: list[int] = []
        found = load(io.BytesIO(line(1) + b"\n{}\n"), url, on_batch=heard.append)
    assert found == Loaded(acknowledged=1, rejected=1, sentences=["line 2: key: missing."])
    assert len(keys) == 1
    assert heard == [len(line(1)) + 4]


def test_a_batch_that_the_log_did_not_accept_is_sent_again_under_the_same_write_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_PAUSE_SECONDS", 0.0)
    down = {"status": 503, "detail": "The log is down.", "outcome": "unknown"}
    answers: list[Answer] = [
        (503, down),
        (207, {"results": [{"position": "1-1"}, down]}),
        (200, {"results": [{"position": "1-1"}, {"position": "1-2"}]}),
    ]
    with _primary(lambda attempt: answers[attempt]) as (url, keys):
        found = load(io.BytesIO(line(1) + b"\n" + line(2)), url)
    assert found == Loaded(acknowledged=2)
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_final_failure_reports_where_to_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_TRIES_SECONDS", 0.0)
    with (
        _primary(lambda _: (503, {"detail": "The log is down."})) as (url, _),
        pytest.raises(LabError, match=r"line 8 to line 9 were not .* The log is down\.; 0 items were .* --skip 7"),
    ):
        load(io.BytesIO(b"\n".join(map(line, range(1, 10)))), url, skip=7)


def taken(request: bytes) -> Answer:
    return 200, {"results": [{"position": f"1-{n}"} for n, _ in enumerate(request.split(b"\n"), 1)]}


def test_each_item_of_an_array_has_its_own_write_ids() -> None:
    array = b"[" + b",".join([A] * (loading.ITEMS_MAX + 1)) + b"]"
    assert [batch.first for batch in batches(io.BytesIO(array), skip=0)] == [0, loading.ITEMS_MAX]
    assert [batch.first for batch in batches(io.BytesIO(array), skip=loading.ITEMS_MAX)] == [loading.ITEMS_MAX]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[\n" + A + b"\n" + B + b"\n]", "line 3: not JSON"),
        (b"[" + A + b"]\n" + B, "line 2: .* Text after the end"),
        (b"[" + A + b",\n", "line 2: not JSON"),
        (b"[\n\xff]", "line 2: not UTF-8"),
        pytest.param(b"[" * 100_000, "nested too deep", id="deep"),
        (b"[\n" + A + b",\n]", "line 3: not JSON"),
    ],
)
def test_an_error_in_an_array_is_located_and_nothing_is_written(content: bytes, said: str) -> None:
    with (
        _primary(lambda _: pytest.fail("nothing must be sent")) as (url, keys),
        pytest.raises(LabError, match=f"{said}.*; 0 items were written before that, --skip 0 continues"),
    ):
        load(io.BytesIO(content), url)
    assert keys == []


def test_a_line_that_is_an_array_is_rejected_alone() -> None:
    with _primary(taken) as (url, keys):
        found = load(io.BytesIO(A + b"\n[1]\n" + B), url)
        assert found == Loaded(2, 1, ["line 2: This is a JSON array, not an object."])
        assert load(io.BytesIO(b"\n[[]]"), url).acknowledged == 0
    assert len(keys) == 1


@pytest.mark.parametrize(
    "answer", [{}, [], {"results": []}, {"results": [{"position": "1-1"}] * 2}, {"results": ["ok"]}, {"results": None}]
)
def test_a_response_unlike_a_primarys_is_an_error(answer: Any) -> None:
    with (
        _primary(lambda _: (200, answer)) as (url, _),
        pytest.raises(LabError, match=r"did not respond like a primary.* --skip 0 continues"),
    ):
        load(io.BytesIO(A), url)


def test_an_interruption_reports_the_number_of_written_items() -> None:
    found = Loaded()

    def interrupt(_: int) -> None:
        if found.acknowledged > loading.ITEMS_MAX:
            raise KeyboardInterrupt

    with (
        _primary(taken) as (url, _),
        pytest.raises(LabError, match=r"interrupted.*; 2,000 items were written before that, --skip 2007 continues"),
    ):
        loading.load(io.BytesIO((A + b"\n") * 5000), url, found, skip=7, on_batch=interrupt)


@contextmanager
def _primary(answer: Callable[[Any], Answer]) -> Iterator[tuple[str, list[str]]]:
    """A server, and the Idempotency-Key of each request. ``taken`` responds by the body, others by number."""
    keys: list[str] = []

    def respond(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        sent = request.rfile.read(int(request.headers["Content-Length"]))
        status, body = answer(sent if answer is taken else len(keys))
        keys.append(request.headers["Idempotency-Key"])
        return status, json.dumps(body).encode()

    with serving(respond) as url:
        yield url, keys
