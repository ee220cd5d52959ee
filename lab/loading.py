"""Loading a file's items into the lab, in batches that are safe to repeat."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from lab import client, files
from lab.client import NodeUnreachable
from lab.errors import LabError
from nodes.http import strict_json

ITEMS_MAX = 1000  # per batch
_BYTES = 2**20  # of a batch
LINE_BYTES_MAX = 4 * 2**20
ARRAY_BYTES_MAX = 64 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TO_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # the same JSON: its strings have no unescaped line breaks
_BLANK = re.compile(r"[ \t\n\r]*")
_TRIES_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_SHOWN_MAX = 10  # rejections that are reported in full
_NOT_AN_OBJECT = {"status": 422, "detail": "This is a JSON array, not an object."}


class Item(NamedTuple):
    """A JSON text without line breaks, and its place in the file."""

    place: str
    line: bytes


class Batch(NamedTuple):
    """Successive items. ``first``: the number of items before them in the file."""

    first: int
    items: list[Item]


@dataclass
class Loaded:
    """The numbers of acknowledged and rejected items, and messages for the first few rejections."""

    acknowledged: int = 0
    rejected: int = 0
    sentences: list[str] = field(default_factory=list)


def load(file: IO[bytes], primary_url: str, loaded: Loaded, *, skip: int, on_batch: Callable[[int], object]) -> None:
    """Write every item after the first ``skip``, and count them in ``loaded``; ``on_batch`` gets each batch's bytes.

    A batch without a response is sent again under the same write ids, for half a minute. Raises ``LabError`` when that
    fails, the file cannot be read, or Ctrl-C interrupts it; the error reports how much was written.
    """
    run = f"load-{secrets.token_hex(8)}"
    try:
        for batch in batches(file, skip):
            _write(primary_url, batch, f"{run}-{batch.first}", loaded)
            on_batch(sum(len(item.line) + 1 for item in batch.items))
    except (LabError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted; items that were being sent may be in the log"
        done = loaded.acknowledged + loaded.rejected
        rejected = f" and {loaded.rejected:,} rejected" if loaded.rejected else ""
        written = f"{loaded.acknowledged:,} items were written{rejected} before that"
        raise LabError(f"{why}; {written}, --skip {skip + done} continues from there") from None


def _write(url: str, batch: Batch, key: str, loaded: Loaded) -> None:
    # The primary would reject an array among the lines, but treat one at the start as the whole body.
    sent = [item for item in batch.items if not item.line.startswith(b"[")]
    answers = iter(_sent(url, sent, key) if sent else [])
    for item in batch.items:
        answer = _NOT_AN_OBJECT if item.line.startswith(b"[") else next(answers)
        if "position" in answer:
            loaded.acknowledged += 1
        else:
            loaded.rejected += 1
            if len(loaded.sentences) < _SHOWN_MAX:
                loaded.sentences.append(f"{item.place}: {answer.get('detail')}")


def batches(file: IO[bytes], skip: int) -> Iterator[Batch]:
    """The items in batches. Raises ``LabError`` for a line that is too long, and for an invalid array."""
    chosen: list[Item] = []
    size = count = 0
    for count, item in enumerate(items(file), 1):
        if count > skip:
            chosen.append(item)
            size += len(item.line)
        if len(chosen) == ITEMS_MAX or size >= _BYTES:
            yield Batch(count - len(chosen), chosen)
            chosen, size = [], 0
    if chosen:
        yield Batch(count - len(chosen), chosen)


def _sent(url: str, sent: list[Item], key: str) -> list[dict[str, Any]]:
    """The response to each item; while the log does not accept some items, all are sent again."""
    deadline = time.monotonic() + _TRIES_SECONDS
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
    body = b"\n".join(item.line for item in sent)
    places = f"{sent[0].place} to {sent[-1].place}"
    while True:
        try:
            status, found = client.request("POST", f"{url}/data/batch", body, 60.0, headers)
        except NodeUnreachable as error:
            why = str(error)
        else:
            if status in {200, 207}:
                results = _results(found, len(sent), url)
                if not any(answer.get("status") == 503 for answer in results):
                    return results
            detail = found.get("detail") if isinstance(found, dict) else None
            if status not in {200, 207, 503}:
                raise LabError(f"{places}: {url} answered {status}: {detail}")
            why = str(detail or "the log was unavailable for some of them")
        if time.monotonic() > deadline:
            raise LabError(f"{places} were not acknowledged for {_TRIES_SECONDS:g} s, but may be in the log: {why}")
        time.sleep(_PAUSE_SECONDS)


def _results(found: Any, count: int, url: str) -> list[dict[str, Any]]:
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, list) or len(results) != count or not all(isinstance(one, dict) for one in results):
        raise LabError(f"{url} did not respond like a primary; the outcome of {count} items is unknown")
    return results


def items(file: IO[bytes]) -> Iterator[Item]:
    """The non-empty lines, or the elements of the array if the file starts with ``[``.

    Raises ``LabError`` for a line that is too long and an invalid array; the primary checks whether a line is JSON.
    """
    number = 0
    try:
        while line := file.readline(LINE_BYTES_MAX + 1):
            if number == 0:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if number == 0 and line.lstrip().startswith(b"["):
                yield from _elements(line + file.read(ARRAY_BYTES_MAX))
                return
            if len(line) > LINE_BYTES_MAX:
                raise LabError(f"line {number + 1} is longer than the {LINE_BYTES_MAX:,} bytes that fit in a batch")
            for piece in _pieces(line.strip()):
                number += 1
                if found := piece.strip():
                    yield Item(f"line {number}", found.translate(_TO_ONE_LINE))
    except OSError as error:
        raise LabError(f"the file cannot be read beyond line {number}: {error.strerror}") from None


def _pieces(line: bytes) -> list[bytes]:
    """Split at carriage returns, which also end a line, unless they are inside one JSON text."""
    if b"\r" in line:
        try:
            strict_json.loads(line)
        except ValueError:
            return line.split(b"\r")
    return [line]


def _elements(raw: bytes) -> list[Item]:
    """The elements of an array. All are read before the first is used, to detect errors early."""
    if len(raw) > ARRAY_BYTES_MAX:
        raise LabError(f"an array has at most {ARRAY_BYTES_MAX:,} bytes; use one object per line for more")
    try:
        return list(_parsed(files.decoded(raw)))
    except json.JSONDecodeError as error:
        raise LabError(f"line {error.lineno}: not JSON, in the array at the start of the file: {error.msg}") from None
    except (RecursionError, ValueError):
        raise LabError("the array has an item that is nested too deeply, or a number that is too long") from None


def _parsed(array: str) -> Iterator[Item]:
    decoder = json.JSONDecoder()
    line, counted, number = 1, 0, 0
    at = _after_blank(array, array.index("[") + 1)
    more = array[at : at + 1] != "]"
    while more:
        _, end = decoder.raw_decode(array, at)
        number, line, counted = number + 1, line + array.count("\n", counted, at), at
        yield Item(f"line {line}, item {number}", array[at:end].encode().translate(_TO_ONE_LINE))
        at = _after_blank(array, end)
        more = array[at : at + 1] == ","
        if more:
            at = _after_blank(array, at + 1)
        elif array[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", array, at)
    rest = _after_blank(array, at + 1)
    if rest < len(array):
        raise json.JSONDecodeError("Text after the end of the array", array, rest)


def _after_blank(array: str, at: int) -> int:
    found = _BLANK.match(array, at)
    return at if found is None else found.end()
