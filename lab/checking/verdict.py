"""What a checker says of one guarantee, and how it keeps the smallest counterexample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lab.checking.operation import Operation

Judgement = Literal["held", "violated", "not tested", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """``tested``: on how many operations; with none of them a guarantee is not tested rather than held."""

    guarantee: str
    judgement: Judgement
    tested: int
    violations: int = 0
    words: str = ""
    operations: list[Operation] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The verdict for scripts."""
        return {
            "guarantee": self.guarantee,
            "verdict": self.judgement,
            "tested": self.tested,
            "violations": self.violations,
            "words": self.words,
            "operations": [found.as_json() for found in self.operations],
        }


class Tally:
    """Counts what was tested and what was violated, and keeps the smallest counterexample."""

    def __init__(self, guarantee: str) -> None:
        self._guarantee = guarantee
        self._size: tuple[int, int] | None = None
        self._smallest: tuple[str, list[Operation]] = ("", [])
        self._violations = 0
        self.tested = 0

    def violated(self, words: str, *operations: Operation) -> None:
        """One violation. Of several the one with the fewest operations counts, then the shortest."""
        self._violations += 1
        ends_us = [found.returned_us for found in operations], [found.invoked_us for found in operations]
        span_us = max(ends_us[0], default=0) - min(ends_us[1], default=0)
        size = (len(operations), span_us)
        if self._size is None or size < self._size:
            self._size = size
            self._smallest = (words, list(operations))

    def verdict(self) -> Verdict:
        """What is to be said."""
        if self._violations:
            return Verdict(self._guarantee, "violated", self.tested, self._violations, *self._smallest)
        return Verdict(self._guarantee, "held" if self.tested else "not tested", self.tested)


def told(operation: Operation) -> str:
    """An operation in words."""
    who = f"session {operation.session}"
    if operation.kind == "write":
        return f"{who} wrote {operation.key} as {operation.seen}"
    shown = f"version {operation.seen}" if operation.version else f"nothing, at {operation.position}"
    if operation.kind == "final":
        return f"at the end {operation.node} had {shown} of {operation.key}"
    return f"{who} read {operation.key} from {operation.node} and was shown {shown}"
