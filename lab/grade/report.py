"""The result of a grading, for a terminal and for a file."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.text import Text

from lab import __version__
from lab.checking.history import History
from lab.checking.verdict import Verdict
from lab.grade.judges import judge, passed
from lab.grade.levels import LEVELS, Level
from lab.grade.record import Record
from lab.grade.story import LANES, tell
from lab.report.spacetime import Event, as_svg, as_text

MARKS = {True: ("✔", "green"), False: ("✘", "bold red"), None: ("·", "dim")}


@dataclass(frozen=True)
class Outcome:
    """``passed`` is ``None`` for a level that was not reached. ``tested``: how often, by guarantee."""

    level: Level
    passed: bool | None = None
    tested: dict[str, int] = field(default_factory=dict)
    words: str = ""
    events: list[Event] = field(default_factory=list)
    history: History | None = None

    def as_json(self) -> dict[str, Any]:
        level = {"level": self.level.number, "name": self.level.name, "sentence": self.level.sentence}
        found = {"passed": self.passed, "tested": self.tested, "words": self.words, "hint": self.level.hint}
        return {**level, **found, "events": [event.as_json() for event in self.events]}


def weigh(level: Level, records: Iterable[Record]) -> Outcome:
    """Judge a level, up to the first record that does not pass: that one has the story to tell."""
    tested = Counter[str]()
    judged: list[tuple[Record, list[Verdict]]] = []
    is_passed = True
    for record in records:
        judged.append((record, judge(record)))
        tested.update({found.guarantee: found.tested for found in judged[-1][1]})
        if not (is_passed := passed(judged[-1][1])):
            break
    record, verdicts = judged[0 if is_passed else -1]
    words, events = tell(record, verdicts)
    return Outcome(level, is_passed, dict(tested), words, events, record.history)


@dataclass(frozen=True)
class Result:
    command: tuple[str, ...]
    seed: int
    outcomes: list[Outcome]

    @property
    def failed(self) -> Outcome | None:
        return next((found for found in self.outcomes if found.passed is False), None)

    @property
    def history(self) -> History | None:
        """That of the failed level, or else of the last one."""
        found = self.failed or next((one for one in reversed(self.outcomes) if one.history is not None), None)
        return None if found is None else found.history

    def as_json(self) -> dict[str, Any]:
        reached = {found.level.number: found for found in self.outcomes}
        levels = [reached.get(level.number, Outcome(level)) for level in LEVELS]
        return {
            "lab": __version__,
            "command": list(self.command),
            "seed": self.seed,
            "levels": [found.as_json() for found in levels],
            "passed": sum(found.passed is True for found in levels),
            "of": len(levels),
        }


def line(found: Outcome) -> Text:
    mark, style = MARKS[found.passed]
    tested = ", ".join(f"{guarantee} {count:,}" for guarantee, count in found.tested.items())
    shown = Text.assemble((mark, style), f" {found.level.number} {found.level.name:<12} ", found.level.sentence)
    if found.passed and found.words:
        tested += f"; {found.words}"
    return shown.append(f"  tests: {tested}" if tested else "", "dim")


def explanation(found: Outcome, seed: int, width: int) -> Group:
    """Say what was wrong, show it, and name the page that explains it."""
    diagram = as_text(found.events, LANES, width)
    parts = [Text(f"\nLevel {found.level.number}: {found.words}\n", "bold")]
    parts += [Text(diagram, no_wrap=True)] if diagram else []
    return Group(*parts, Text(f"See {found.level.hint}; repeat it with --level {found.level.number} --seed {seed}."))


def picture(found: Outcome) -> str:
    return as_svg(found.events, LANES)
