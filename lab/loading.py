"""``lab load``: the items of a file go into the lab, in batches that are safe to repeat."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import urllib3

from lab import items
from lab.errors import LabError
from lab.items import Item
from nodes.http import strict_json

ITEMS_MAX = 1000
_BYTES = 2**20
_TRIES_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_SHOWN_MAX = 10
_NO_OBJECT = {"status": 422, "detail": "This is a JSON array, not an object."}


class Batch(NamedTuple):
    """Successive items. ``first``: how many items of the file are before them."""

    first: int
    items: list[Item]


@dataclass
class Loaded:
    """How many items were acknowledged, how many refused, and the first few refusals as sentences."""

    acknowledged: int = 0
    refused: int = 0
    sentences: list[str] = field(default_factory=list)


def load(file: IO[bytes], primary_url: str, *, skip: int, on_batch: Callable[[Loaded, int], None]) -> Loaded:
    """Write every item after the first ``skip``. ``on_batch`` hears what was done, and of how many bytes.

    A batch without an answer is sent again under the same write ids, for half a minute. Raises ``LabError`` when that
    was in vain, the file cannot be read on, or Ctrl-C interrupts it; the error says how far it came.
    """
    run = f"load-{secrets.token_hex(8)}"
    found = Loaded()
    pool = urllib3.PoolManager(retries=False, timeout=60.0)
    try:
        for batch in batches(file, skip):
            _write(pool, primary_url, batch, f"{run}-{batch.first}", found)
            on_batch(found, sum(len(item.line) + 1 for item in batch.items))
    except (LabError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted; what was being sent may be in the log"
        raise LabError(f"{why}; {_so_far(found, skip)}") from None
    return found


def _so_far(found: Loaded, skip: int) -> str:
    done = found.acknowledged + found.refused
    refused = f" and {found.refused:,} refused" if found.refused else ""
    return f"{found.acknowledged:,} items were written{refused} before that, --skip {skip + done} goes on from there"


def _write(pool: urllib3.PoolManager, url: str, batch: Batch, key: str, found: Loaded) -> None:
    # An array among the lines would be refused by itself, but at the beginning of a body it would be all of it.
    sent = [item for item in batch.items if not item.line.startswith(b"[")]
    answers = iter(_sent(pool, url, sent, key) if sent else [])
    for item in batch.items:
        answer = _NO_OBJECT if item.line.startswith(b"[") else next(answers)
        if "position" in answer:
            found.acknowledged += 1
        else:
            found.refused += 1
            if len(found.sentences) < _SHOWN_MAX:
                found.sentences.append(f"{item.place}: {answer.get('detail')}")


def batches(file: IO[bytes], skip: int) -> Iterator[Batch]:
    """The items in batches. Raises ``LabError`` for a line that is too long, and for an array that is none."""
    chosen: list[Item] = []
    size = count = 0
    for count, item in enumerate(items.read(file), 1):
        if count > skip:
            chosen.append(item)
            size += len(item.line)
        if len(chosen) == ITEMS_MAX or size >= _BYTES:
            yield Batch(count - len(chosen), chosen)
            chosen, size = [], 0
    if chosen:
        yield Batch(count - len(chosen), chosen)


def _sent(pool: urllib3.PoolManager, url: str, sent: list[Item], key: str) -> list[dict[str, Any]]:
    """The answer to each item; those that the log did not take for now are sent until it does."""
    deadline = time.monotonic() + _TRIES_SECONDS
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
    body = b"\n".join(item.line for item in sent)
    places = f"{sent[0].place} to {sent[-1].place}"
    while True:
        try:
            reply = pool.request("POST", f"{url}/data/batch", body=body, headers=headers)
            found = strict_json.loads(reply.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            why = f"{url} does not answer: {error}"
        else:
            if reply.status in {200, 207}:
                results = _results(found, len(sent), url)
                if not any(answer.get("status") == 503 for answer in results):
                    return results
            detail = found.get("detail") if isinstance(found, dict) else None
            if reply.status not in {200, 207, 503}:
                raise LabError(f"{places}: {url} answered {reply.status}: {detail}")
            why = str(detail or "the log was unavailable for some of them")
        if time.monotonic() > deadline:
            raise LabError(f"{places} were not acknowledged for {_TRIES_SECONDS:g} s, but may be in the log: {why}")
        time.sleep(_PAUSE_SECONDS)


def _results(found: Any, count: int, url: str) -> list[dict[str, Any]]:
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, list) or len(results) != count or not all(isinstance(one, dict) for one in results):
        raise LabError(f"{url} did not answer as a primary does; what it did with {count} items is unknown")
    return results
