"""The result of runs: what happened, what faults met, and a failure as a list and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lab.report.spacetime import Event, as_svg, as_text
from lab.simulation.branches import BRANCHES, Branch, where
from lab.simulation.run import Failure, Outcome
from lab.simulation.schedule import KINDS
from lab.simulation.world import CHECK, CLIENT, PRIMARY, SENTINEL
from lab.terminal import table

_SHOWN = 40  # events before a failure
STATES = ("recovering", "reading", "rewound", "resyncing", "starting", "hanging", "down", "away")
_LANES = (CLIENT, PRIMARY, "log1", "log2", SENTINEL, *(f"lab14-replica{number}" for number in (1, 2, 3)), CHECK)


@dataclass
class Summary:
    """Of all runs: ``failures`` are the runs that failed, in the order of their end. ``taken``: how often each
    branch was taken, ``None`` if that was not counted.
    """

    runs: int = 0
    seconds: float = 0.0
    steps: int = 0
    faults: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    taken: Counter[Branch] | None = None
    failures: list[Failure] = field(default_factory=list)

    def add(self, outcome: Outcome, taken: Counter[Branch] | None) -> None:
        self.runs += 1
        self.seconds += outcome.seconds
        self.steps += outcome.steps
        self.faults += len(outcome.faults)
        self.counts.update(outcome.counts)
        self.met.update(outcome.met)
        if taken is not None:
            self.taken = taken + (self.taken or Counter())
        if outcome.failure is not None:
            self.failures.append(outcome.failure)

    def as_json(self) -> dict[str, Any]:
        met = {kind: {state: self.met[kind, state] for state in STATES} for kind in KINDS}
        taken = self.taken
        return {
            "runs": self.runs,
            "seconds": round(self.seconds, 3),
            "steps": self.steps,
            "faults": self.faults,
            "counts": dict(sorted(self.counts.items())),
            "met": met,
            "branches": None if taken is None else {branch.meaning: taken[branch] for branch in BRANCHES},
            "failures": [failure_json(failure) for failure in self.failures],
        }


def failure_json(failure: Failure) -> dict[str, Any]:
    return {
        "seed": failure.seed,
        "rule": failure.rule,
        "words": failure.words,
        "at_seconds": failure.at_seconds,
        "faults": [fault._asdict() for fault in failure.faults],
        "told": [event.as_json() for event in failure.told],
        "events": [event.as_json() for event in failure.events],
    }


def summary(found: Summary) -> Group:
    counts = found.counts
    lines = [
        f"{found.runs:,} {_plural(found.runs, 'run')} of {duration(found.seconds)} in all: {found.steps:,} steps, "
        f"{found.faults:,} faults, {counts['quiet points']:,} quiet points",
        f"{counts['acknowledged']:,} writes acknowledged, {counts['applied']:,} entries applied, "
        f"{counts['snapshots']:,} snapshots installed, {_reads(counts):,} reads at consistency levels",
    ]
    lost = "acknowledged writes lost by a fault"
    if counts[lost]:
        lines.append(f"{counts[lost]:,} {lost}, and named by the lab if its primary still could")
    return Group(*(Text(line) for line in lines), Text(), coverage(found.met))


def _reads(counts: Counter[str]) -> int:
    return sum(count for name, count in counts.items() if name.startswith("reads at level "))


def coverage(met: Counter[tuple[str, str]]) -> Table:
    """How often each kind of fault met each state of a replica's reader."""
    used = [state for state in STATES if any(met[kind, state] for kind in KINDS)]
    shown = table("fault", *used, right=used, title="How often each fault met each state of a replica's reader")
    for kind in KINDS:
        shown.add_row(kind.replace("_", " "), *(str(met[kind, state] or "·") for state in used))
    return shown


def branches(taken: Mapping[Branch, int]) -> Table:
    """How often each branch that recovers from something was taken; those never taken come last."""
    shown = table("where", "recovers from", "times", right=("times",))
    for branch in sorted(BRANCHES, key=lambda branch: not taken.get(branch)):
        shown.add_row(where(branch), branch.meaning, str(taken.get(branch) or "never"))
    return shown


def failure(found: Failure, width: int) -> Group:
    """A failed run: its rule, its faults, and what happened last."""
    faults = len(found.told)
    return Group(
        Text(f"Seed {found.seed} violates: {found.rule}", style="bold red"),
        Text(f"after {duration(found.at_seconds)}: {found.words}"),
        Text(f"\n{faults} {_plural(faults, 'fault')}:"),
        *(Text(f"  {event.at_us / 1e6:10.3f} s  {event.lane} {event.words}") for event in found.told),
        Text("\nWhat happened last:"),
        Text(as_text(_last(found), _LANES, width)),
    )


def picture(found: Failure) -> str:
    """The space-time diagram of a failed run, as SVG."""
    return as_svg(_last(found), _LANES)


def _last(found: Failure) -> list[Event]:
    return found.events[-_SHOWN:]


def duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
