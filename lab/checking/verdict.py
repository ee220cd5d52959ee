"""The verdict on one guarantee, and the tally by which a checker reaches it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lab.checking.history import Operation

Judgement = Literal["held", "violated", "not tested", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """``tested``: the number of operations that were tested; a guarantee tested on none is not held but not tested."""

    guarantee: str
    judgement: Judgement
    tested: int
    violations: int = 0
    words: str = ""
    operations: list[Operation] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the verdict for scripts."""
        return {
            "guarantee": self.guarantee,
            "verdict": self.judgement,
            "tested": self.tested,
            "violations": self.violations,
            "words": self.words,
            "operations": [found.as_json() for found in self.operations],
        }


class Tally:
    """Counts tests and violations, and keeps the smallest counterexample."""

    def __init__(self, guarantee: str) -> None:
        self._guarantee = guarantee
        self._violations: int = 0
        self._size: tuple[int, int] | None = None
        self._smallest: tuple[str, list[Operation]] = ("", [])
        self.tested = 0

    def violated(self, words: str, *operations: Operation) -> None:
        """Count a violation; the counterexample with the fewest operations is kept, then the shortest in time."""
        self._violations += 1
        span_us = max((found.returned_us for found in operations), default=0)
        span_us -= min((found.invoked_us for found in operations), default=0)
        size = (len(operations), span_us)
        if self._size is None or size < self._size:
            self._size, self._smallest = size, (words, list(operations))

    def verdict(self) -> Verdict:
        """Return the verdict on everything counted."""
        if self._violations:
            return Verdict(self._guarantee, "violated", self.tested, self._violations, *self._smallest)
        return Verdict(self._guarantee, "held" if self.tested else "not tested", self.tested)


def describe(operation: Operation) -> str:
    """Return an operation in words."""
    session = f"session {operation.session}"
    if operation.kind == "write":
        return f"{session} wrote {operation.key} as {operation.seen}"
    shown = f"version {operation.seen}" if operation.version else f"nothing, at {operation.position}"
    if operation.kind == "final":
        return f"at the end {operation.node} had {shown} of {operation.key}"
    return f"{session} read {operation.key} from {operation.node} and was shown {shown}"
