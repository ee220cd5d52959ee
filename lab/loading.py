"""Loading a file's items into the lab, in batches that are safe to repeat."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from lab import client, files
from lab.client import NodeUnreachable
from lab.errors import LabError
from lab.files import Item

ITEMS_MAX = 1000  # per batch
_BYTES = 2**20  # of a batch
_TRIES_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_SHOWN_MAX = 10  # rejections that are reported in full
_NOT_AN_OBJECT = {"status": 422, "detail": "This is a JSON array, not an object."}


class Batch(NamedTuple):
    """Successive items. ``first``: the number of items before them in the file."""

    first: int
    items: list[Item]


@dataclass
class Loaded:
    """How many items were acknowledged, how many rejected; the first few rejections as sentences."""

    acknowledged: int = 0
    rejected: int = 0
    sentences: list[str] = field(default_factory=list)


def load(file: IO[bytes], primary_url: str, loaded: Loaded, *, skip: int, on_batch: Callable[[int], object]) -> None:
    """Write every item after the first ``skip``, and count them in ``loaded``; ``on_batch`` gets each batch's bytes.

    A batch without a response is sent again under the same write ids, for half a minute. Raises ``LabError`` when that
    fails, the file cannot be read, or Ctrl-C interrupts it; the error says how much was written.
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
    # The primary would reject an array among the lines by itself, but take one at the start for the whole body.
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
    for count, item in enumerate(files.items(file), 1):
        if count > skip:
            chosen.append(item)
            size += len(item.line)
        if len(chosen) == ITEMS_MAX or size >= _BYTES:
            yield Batch(count - len(chosen), chosen)
            chosen, size = [], 0
    if chosen:
        yield Batch(count - len(chosen), chosen)


def _sent(url: str, sent: list[Item], key: str) -> list[dict[str, Any]]:
    """The response to each item; while the log does not accept some of them, all are sent again."""
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
        raise LabError(f"{url} did not answer like a primary; what it did with {count} items is unknown")
    return results
