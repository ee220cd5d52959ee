"""The verdict on one guarantee, and the tally of a checker."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, Literal, ParamSpec

from lab.checking.history import Operation

P = ParamSpec("P")
Judgement = Literal["held", "violated", "not tested", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """``tested``: the number of tested operations; with 0 the verdict is not tested, instead of held."""

    guarantee: str
    judgement: Judgement
    tested: int
    violations: int = 0
    words: str = ""
    operations: list[Operation] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "guarantee": self.guarantee,
            "verdict": self.judgement,
            "tested": self.tested,
            "violations": self.violations,
            "words": self.words,
            "operations": [found.as_json() for found in self.operations],
        }


@dataclass
class Tally:
    """Counts the tests and violations of a checker, and keeps the smallest counterexample."""

    tested: int = 0
    violations: int = 0
    judgement: Judgement | None = None
    _size: tuple[int, int] | None = None
    smallest: tuple[str, list[Operation]] = ("", [])

    def test(self, held: bool, words: str, *operations: Operation) -> None:
        """Count a test, and a violation if it failed; each ``{}`` in ``words`` stands for one of the operations."""
        self.tested += 1
        if not held:
            self.violated(words.format(*map(describe, operations)), *operations)

    def violated(self, words: str, *operations: Operation) -> None:
        """Count a violation; keep the counterexample with the fewest operations, then the shortest in time."""
        self.violations += 1
        span_us = max((found.returned_us for found in operations), default=0)
        span_us -= min((found.invoked_us for found in operations), default=0)
        size = (len(operations), span_us)
        if self._size is None or size < self._size:
            self._size, self.smallest = size, (words, list(operations))

    def unknown(self, words: str, *operations: Operation) -> None:
        """Give up: the history does not show whether the guarantee held."""
        self.tested = self.violations = 0
        self.judgement, self.smallest = "unknown", (words, list(operations))


def verdict(guarantee: str, check: Callable[Concatenate[Tally, P], None], *args: P.args, **kwargs: P.kwargs) -> Verdict:
    """Return the verdict of a checker: a function that tests a guarantee on its arguments and updates a tally."""
    tally = Tally()
    check(tally, *args, **kwargs)
    counted: Judgement = "violated" if tally.violations else "held" if tally.tested else "not tested"
    return Verdict(guarantee, tally.judgement or counted, tally.tested, tally.violations, *tally.smallest)


def describe(operation: Operation) -> str:
    session, at = f"session {operation.session}", operation.position
    version = f"{operation.version if at is None else operation.seen}{operation.token and f' ({operation.token})'}"
    if operation.kind == "write":
        return f"{session} wrote {operation.key} as {'version ' if at is None else ''}{version}"
    shown = f"version {version}" if operation.version else "nothing" if at is None else f"nothing, at {at}"
    if operation.kind == "final":
        return f"at the end {operation.node} had {shown} of {operation.key}"
    return f"{session} read {operation.key} from {operation.node} and was shown {shown}"
