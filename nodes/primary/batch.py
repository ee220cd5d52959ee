"""Many writes in one request, each taken or refused by itself: for loading data."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

from flask import Response, request
from pydantic import Field
from typing_extensions import TypedDict

from broker.errors import LogError, WriteIdReused
from broker.log import Appended, Change, ReplicationLog
from broker.position import Position
from nodes.http import strict_json
from nodes.http.api import Api, as_object, not_json, parsed, raw_body
from nodes.http.problem import Problem, unavailable
from nodes.http.writing import WriteBody, idempotency_key, write_id_of
from nodes.primary.acceptance import Acceptance
from nodes.runtime.gate import PositionGate, State

BATCH_BYTES_MAX = 8 * 2**20
BATCH_ITEMS_MAX = 10_000
BATCHES_MAX = 4
_EXCHANGE = 250  # changes that the log server takes in at once; other writers come in between
_KEY_MAX = 120
_NOT_SENT = Problem(
    503, "not-sent", "Not sent", "The log had become unavailable before this item.", outcome="not_applied"
)


class BatchAnswer(TypedDict):
    """How many items were ``acknowledged``, ``not_applied`` and ``unknown``; ``results`` has one answer for each.

    An acknowledged item has ``version``, ``position`` and ``write_id``; any other is problem details with ``outcome``.
    ``position`` is the newest of all, or null.
    """

    acknowledged: int
    not_applied: int
    unknown: int
    position: str | None
    results: list[dict[str, Any]]


class Batches:
    """Takes batches, at most four at once, because each may hold several megabytes."""

    def __init__(self, log: ReplicationLog, gate: PositionGate, acceptance: Acceptance) -> None:
        self._log = log
        self._gate = gate
        self._acceptance = acceptance
        self._room = threading.BoundedSemaphore(BATCHES_MAX)

    def take(self, write_id: str) -> BatchAnswer:
        """Take the request's items, in their order. The n-th has the write id ``<write_id>-<n>``, n from 1.

        Raises ``Problem`` where the request as a whole is wrong, or the log takes none of it.
        """
        if len(write_id) > _KEY_MAX:
            detail = f"Idempotency-Key: at most {_KEY_MAX} characters for a batch."
            raise Problem(400, "invalid-idempotency-key", "Invalid Idempotency-Key", detail)
        if not self._room.acquire(blocking=False):
            problem = Problem(503, "too-many-batches", "Too many batches", f"{BATCHES_MAX} are being taken already.",
                              outcome="not_applied")  # fmt: skip
            problem.headers["Retry-After"] = "1"
            raise problem
        try:
            return self._answer(list(_checked(raw_body(BATCH_BYTES_MAX), write_id)))
        finally:
            self._room.release()

    def _answer(self, items: list[Change | Problem]) -> BatchAnswer:
        answers, newest = self._append([item for item in items if isinstance(item, Change)])
        of_changes = iter(answers)
        found = [next(of_changes) if isinstance(item, Change) else item.body() for item in items]
        outcome = Counter(item.get("outcome", "acknowledged") for item in found)
        return {
            "acknowledged": outcome["acknowledged"],
            "not_applied": outcome["not_applied"],
            "unknown": outcome["unknown"],
            "position": newest and str(newest),
            "results": found,
        }

    def _append(self, changes: list[Change]) -> tuple[list[dict[str, Any]], Position | None]:
        """The answer to each change, and the newest position of all. Raises ``LogError`` where the log took none."""
        answers: list[dict[str, Any]] = []
        newest: Position | None = None
        for first in range(0, len(changes), _EXCHANGE):
            chosen = changes[first : first + _EXCHANGE]
            try:
                outcomes = self._log.append_many(chosen)
            except LogError as error:
                self._acceptance.failed(error, len(chosen))
                if not answers:
                    raise
                answers += [unavailable(error).body()] * len(chosen)
                answers += [_NOT_SENT.body()] * (len(changes) - len(answers))
                break
            answers += map(_answer, chosen, outcomes)
            taken = [
                State(outcome.position, change.write_id, outcome.at_us)
                for change, outcome in zip(chosen, outcomes, strict=True)
                if isinstance(outcome, Appended)
            ]
            if taken:
                self._acceptance.acknowledged(len(taken))
                state = max(taken)
                self._gate.advance(state)
                newest = max(newest or state.position, state.position)
        return answers, newest


def add_batch(api: Api, batches: Batches) -> None:
    """Add the endpoint."""
    items = Annotated[list[WriteBody], Field(max_length=BATCH_ITEMS_MAX)]
    kinds = {"application/x-ndjson": str, "application/json": items | WriteBody}  # an object is a line

    @api.route(
        "POST",
        "/data/batch",
        admin=False,
        reads=kinds,
        answer=BatchAnswer,
        also={207: BatchAnswer},
        headers=idempotency_key(_KEY_MAX),
    )
    def write_batch() -> Response:
        """Write many keys: an array of objects with key and value, or one such object a line.

        Each item is taken or refused by itself, in the order given, and has its own answer; the status is 207 where any
        was not acknowledged. What is not JSON refuses an array as a whole, and of lines only its own. The same request
        with the same Idempotency-Key writes nothing twice. At most 10,000 items and 8 MiB.
        """
        answer = batches.take(write_id_of(request.headers.get("Idempotency-Key")))
        return api.reply(answer, 200 if answer["acknowledged"] == len(answer["results"]) else 207)


def _answer(change: Change, outcome: Appended | WriteIdReused | None) -> dict[str, Any]:
    """What to say of one item."""
    if isinstance(outcome, Appended):
        position = outcome.position
        return {"version": position.version, "position": str(position), "write_id": change.write_id}
    if isinstance(outcome, WriteIdReused):
        return Problem(422, "idempotency-key-reused", "Idempotency-Key reused", f"{outcome}.").body()
    raise AssertionError("only a delete can find nothing to do")


def _checked(raw: bytes, write_id: str) -> Iterator[Change | Problem]:
    """Each item as a change, or what is wrong with it. Raises ``Problem`` where they are no items, or too many."""
    try:
        items = list(islice(_items(raw), BATCH_ITEMS_MAX + 1))
    except ValueError as error:
        raise not_json(error) from None
    if len(items) > BATCH_ITEMS_MAX:
        detail = f"A batch has at most {BATCH_ITEMS_MAX} items."
        raise Problem(413, "batch-too-large", "Batch too large", detail)
    for number, item in enumerate(items, 1):
        try:
            body = parsed(WriteBody, as_object(item), 422, "invalid-field")
        except Problem as problem:
            yield problem
        else:
            yield Change("set", body.key, body.text, f"{write_id}-{number}")


def _items(raw: bytes) -> Iterator[Any]:
    """The values of an array, or lines as they are. Raises ``ValueError`` where there is neither."""
    if not raw.strip():
        raise ValueError("there is nothing in it")
    if raw.lstrip().startswith(b"["):
        return strict_json.items(raw)
    return (line for line in raw.split(b"\n") if line.strip())  # \r is white space in JSON
