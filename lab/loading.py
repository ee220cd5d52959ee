"""``lab load``: a file of JSON lines goes into the lab, in batches that are safe to repeat."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import urllib3

from lab.errors import LabError

LINES_MAX = 1000
_BYTES = 2**20
_LINE_BYTES_MAX = 4 * 2**20
_TRIES_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_SHOWN_MAX = 10


class Batch(NamedTuple):
    """Some lines that are not empty, and their numbers in the file."""

    numbers: list[int]
    lines: list[bytes]


@dataclass
class Loaded:
    """How many lines were acknowledged, how many refused, and the first few refusals as sentences."""

    acknowledged: int = 0
    refused: int = 0
    sentences: list[str] = field(default_factory=list)


def load(file: IO[bytes], primary_url: str, *, skip: int, on_batch: Callable[[Loaded, int], None]) -> Loaded:
    """Write every line after the first ``skip``. ``on_batch`` hears what was done, and of how many bytes.

    A batch without an answer is sent again under the same write ids, for half a minute. Raises ``LabError`` when that
    was in vain; it says where to go on.
    """
    run = f"load-{secrets.token_hex(8)}"
    found = Loaded()
    pool = urllib3.PoolManager(retries=False, timeout=60.0)
    for batch in batches(file, skip):
        body = b"\n".join(batch.lines)
        answers = _sent(pool, primary_url, body, f"{run}-{batch.numbers[0]}", batch.numbers)
        for number, answer in zip(batch.numbers, answers, strict=True):
            if "position" in answer:
                found.acknowledged += 1
            else:
                found.refused += 1
                if len(found.sentences) < _SHOWN_MAX:
                    found.sentences.append(f"line {number}: {answer['detail']}")
        on_batch(found, len(body) + 1)
    return found


def batches(file: IO[bytes], skip: int) -> Iterator[Batch]:
    """The lines in batches. Raises ``LabError`` for a line that is too long for any."""
    numbered: list[tuple[int, bytes]] = []
    size = number = 0
    while line := file.readline(_LINE_BYTES_MAX):
        number += 1
        if len(line) == _LINE_BYTES_MAX:
            raise LabError(f"line {number} is longer than {_LINE_BYTES_MAX} bytes, which no batch takes")
        if number > skip and (text := line.strip()):
            numbered.append((number, text))
            size += len(text)
        if len(numbered) == LINES_MAX or size >= _BYTES:
            yield Batch(*map(list, zip(*numbered, strict=True)))
            numbered, size = [], 0
    if numbered:
        yield Batch(*map(list, zip(*numbered, strict=True)))


def _sent(pool: urllib3.PoolManager, url: str, body: bytes, key: str, numbers: list[int]) -> list[dict[str, Any]]:
    """The answer to each line; those that the log did not take for now are sent until it does."""
    deadline = time.monotonic() + _TRIES_SECONDS
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
    while True:
        try:
            reply = pool.request("POST", f"{url}/data/batch", body=body, headers=headers)
            found = json.loads(reply.data)
            if reply.status in {200, 207} and not any(answer.get("status") == 503 for answer in found["results"]):
                results: list[dict[str, Any]] = found["results"]
                return results
            if reply.status not in {207, 503}:
                raise LabError(f"{url} answered {reply.status}: {found.get('detail')}")
            why = str(found.get("detail", "the log was unavailable for some of the lines"))
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            why = f"{url} does not answer: {error}"
        if time.monotonic() > deadline:
            raise LabError(
                f"lines {numbers[0]} to {numbers[-1]} were not acknowledged for {_TRIES_SECONDS:g} s: {why} "
                f"Those before are in the log; --skip {numbers[0] - 1} goes on from here."
            )
        time.sleep(_PAUSE_SECONDS)
