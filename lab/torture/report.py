"""A torture run's verdict, for a terminal and for scripts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from lab.checking import promises, report
from lab.checking.verdict import Verdict
from lab.torture.run import Order, Record
from lab.torture.schedule import DELAY


class Judged:
    """A record with its verdicts."""

    def __init__(
        self, order: Order, record: Record, verdicts: list[Verdict], levels: dict[str, list[Verdict]], again: str
    ) -> None:
        """``again``: the command that does it all again."""
        self.order = order
        self.record = record
        self.verdicts = verdicts
        self.broken = {level: found for level, judged in levels.items() if (found := promises.broken(level, judged))}
        self.levels = levels
        self.again = again

    @property
    def clean(self) -> bool:
        """Whether nothing happened that must not."""
        return not self.broken and all(found.judgement == "held" for found in self.verdicts)

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind of act were done."""
        return dict(Counter(done.act.kind for done in self.record.done if not done.refused))

    def as_json(self) -> dict[str, Any]:
        """For scripts: with it, a run can be understood and repeated."""
        return {
            "seed": self.order.seed,
            "seconds": self.order.seconds,
            "again": self.again,
            "clean": self.clean,
            "acts": self.counts,
            "refused": sum(bool(done.refused) for done in self.record.done),
            "operations": dict(Counter(f"{op.kind} {op.outcome}" for op in self.record.history.operations)),
            "entries": len(self.record.ledger.entries),
            "verdicts": [found.as_json() for found in self.verdicts],
            "broken_promises": {level: [one.as_json() for one in found] for level, found in self.broken.items()},
            "schedule": [{**done.act.as_json(), "refused": done.refused} for done in self.record.done],
        }


def picture(judged: Judged) -> Group:
    """For people: verdicts first, then what was done to the lab, and what broke."""
    record = judged.record
    title = f"{report.counted(record.history)}, {len(record.ledger.entries):,} entries in the log"
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for name in ("what must not be", "verdict"):
        table.add_column(name)
    for name in ("tested on", "violations"):
        table.add_column(name, justify="right")
    for found in judged.verdicts:
        _row(table, found.guarantee, found)
    for level, verdicts in judged.levels.items():
        worst = judged.broken.get(level)
        promised = [one for one in verdicts if one.guarantee in promises.PROMISES[level]]
        for one in worst or [max(promised, key=lambda found: found.tested)]:
            name = f"level {level}: {one.guarantee}" if worst else f"level {level}, all {len(promised)} guarantees"
            _row(table, name, one)
    done = judged.counts
    faults = sum(count for kind, count in done.items() if kind != DELAY)
    each = ", ".join(f"{kind} {count}" for kind, count in sorted(done.items()))
    refused = sum(bool(one.refused) for one in record.done)
    parts: list[Any] = [table, f"\n{faults} kills and faults, {done.get(DELAY, 0)} changes of delay: {each}"]
    if refused:
        parts.append(f"{refused} could not be done, for example: {_first_refused(record)}")
    for found in [*judged.verdicts, *(one for broken in judged.broken.values() for one in broken)]:
        if found.words:
            parts.append(escape(f"\n{found.guarantee}, smallest counterexample:\n  {found.words}"))
            parts += [report.since(record.history, operation) for operation in found.operations]
    if judged.clean:
        parts.append(f"\n[bold green]Clean.[/] Again: {escape(judged.again)}")
    else:
        parts.append(f"\n[bold red]Not clean.[/] Again: {escape(judged.again)}")
    return Group(*parts)


def schedule(judged: Judged) -> str:
    """What was done, a line each."""
    return "\n".join(
        f"{done.act}" + (f"  (not done: {done.refused})" if done.refused else "") for done in judged.record.done
    )


def _first_refused(record: Record) -> str:
    return next(escape(f"{one.act.kind} {one.act.target}: {one.refused}") for one in record.done if one.refused)


def _row(table: Table, name: str, found: Verdict) -> None:
    style = "green" if found.judgement == "held" else "bold red"
    violations = f"{found.violations:,}" if found.violations else ""
    table.add_row(name, f"[{style}]{found.judgement}[/]", f"{found.tested:,}", violations)
