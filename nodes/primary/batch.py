"""Batches: many writes in one request, each accepted or rejected independently."""

from collections import Counter
from typing import Any

from typing_extensions import TypedDict

from broker.errors import LogError
from broker.log import Appended, Change
from nodes.http.problem import Problem, problem_of
from nodes.http.writing import WriteBody
from nodes.primary.errors import WriteFailed
from nodes.primary.writes import Writes
from nodes.runtime.gate import State, TooManyWaiters

BATCHES_MAX = 4  # at once: each can hold several megabytes
_EXCHANGE = 250  # changes sent to the log server at once; other writers take turns in between


class NotSent(Exception):
    """A change of a batch that was not sent because the log had become unavailable."""


class TooManyBatches(TooManyWaiters):
    def __init__(self, count: int) -> None:
        Exception.__init__(self, f"{count} batches are in progress, the limit")


class BatchAnswer(TypedDict):
    """The numbers of ``acknowledged``, ``not_applied`` and ``unknown`` items; ``results`` has one element per item.

    An acknowledged item has ``version``, ``position`` and ``write_id``; any other is problem details with ``outcome``.
    ``position`` is the newest of all, or null.
    """

    acknowledged: int
    not_applied: int
    unknown: int
    position: str | None
    results: list[dict[str, Any]]


class Batches:
    def __init__(self, writes: Writes) -> None:
        self._writes = writes

    def write(self, items: list[WriteBody | Problem], write_id: str, copies: int | None = None) -> BatchAnswer:
        """Write the items; the n-th has the write id ``<write_id>-<n>``, n from 1."""
        changes = {
            number: Change("set", item.key, item.text, f"{write_id}-{number}")
            for number, item in enumerate(items, 1)
            if isinstance(item, WriteBody)
        }
        results = dict(zip(changes, self._append(list(changes.values()), copies), strict=True))
        found = [
            _item_answer(results.get(number, item), f"{write_id}-{number}") for number, item in enumerate(items, 1)
        ]
        outcomes = Counter(item.get("outcome", "acknowledged") for item in found)
        newest = max((result.position for result in results.values() if isinstance(result, Appended)), default=None)
        return {
            "acknowledged": outcomes["acknowledged"],
            "not_applied": outcomes["not_applied"],
            "unknown": outcomes["unknown"],
            "position": newest and str(newest),
            "results": found,
        }

    def _append(self, changes: list[Change], copies: int | None) -> list[Appended | Exception | None]:
        """Append in order; return each position or failure. Raises ``LogError`` if the log accepted none."""
        results: list[Appended | Exception | None] = []
        for first in range(0, len(changes), _EXCHANGE):
            chosen = changes[first : first + _EXCHANGE]
            try:
                found = self._writes.append_many(chosen, copies)
            except LogError as error:
                self._writes.failed(error, len(chosen))
                if not results:
                    raise
                not_sent = NotSent("The log had become unavailable before this item")
                results += [WriteFailed(error)] * len(chosen)
                return results + [not_sent] * (len(changes) - len(results))
            results += found
            pairs = zip(chosen, found, strict=True)
            states = [
                State(one.position, change.write_id, one.at_us) for change, one in pairs if isinstance(one, Appended)
            ]
            self._writes.acknowledged(states)
        return results


def _item_answer(result: Any, write_id: str) -> dict[str, Any]:
    if isinstance(result, Appended):
        return {"version": result.position.version, "position": str(result.position), "write_id": write_id}
    problem = problem_of(result)
    if problem is None:
        raise AssertionError(f"an unexpected result of a write: {result!r}")
    return problem.body()
