"""JSON items in a file: lines, or the elements of an array."""

import io

import pytest

from lab.errors import LabError
from lab.files import items

A, B = b'{"key":"a","value":1}', b'{"key":"b","value":2}'


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
    monkeypatch.setattr("lab.files.ARRAY_BYTES_MAX", 100)
    with pytest.raises(LabError, match="an array has at most 100 bytes"):
        list(items(io.BytesIO(b"[" + b",".join([A] * 9) + b"]")))
