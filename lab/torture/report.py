"""The report on a torture run, for a terminal and for scripts."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from lab.checking import promises, report
from lab.checking.history import Plan, PlanLevel
from lab.checking.verdict import Verdict
from lab.torture.run import Order, Record
from lab.torture.schedule import DELAY


@dataclass(frozen=True)
class Judged:
    """A record with its verdicts; ``again`` is the command that repeats the run."""

    order: Order
    record: Record
    verdicts: list[Verdict]
    levels: dict[PlanLevel, list[Verdict]]
    again: str

    @property
    def broken(self) -> dict[PlanLevel, list[Verdict]]:
        found = {level: promises.broken(Plan(level), judged) for level, judged in self.levels.items()}
        return {level: broken for level, broken in found.items() if broken}

    @property
    def clean(self) -> bool:
        return not self.broken and all(found.judgement == "held" for found in self.verdicts)

    @property
    def operations(self) -> Counter[str]:
        """By kind and outcome; lost writes were acknowledged, although the history has them as ``unknown``."""
        lost = len(self.record.losses.writes)
        return report.operations(self.record.history) - Counter({"write unknown": lost}) + Counter({"write ok": lost})

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(done.act.kind for done in self.record.done if not done.refused))

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.order.seed,
            "seconds": self.order.seconds,
            "again": self.again,
            "clean": self.clean,
            "acts": self.counts,
            "refused": sum(bool(done.refused) for done in self.record.done),
            "operations": dict(self.operations),
            "entries": len(self.record.ledger.entries),
            "epochs": len(self.record.ledger.cuts),
            "lost": {"named": len(self.record.losses.named), "unnamed": len(self.record.losses.forgotten)},
            "verdicts": [found.as_json() for found in self.verdicts],
            "broken_promises": {level: [one.as_json() for one in found] for level, found in self.broken.items()},
            "schedule": [{**done.act.as_json(), "refused": done.refused} for done in self.record.done],
        }


def picture(judged: Judged) -> Group:
    record, broken = judged.record, judged.broken
    title = f"{report.counted(judged.operations)}, {len(record.ledger.entries):,} entries in the log"
    table = report.table(title, "must not happen", "verdict")
    for found in judged.verdicts:
        _row(table, found.guarantee, found)
    for level, verdicts in judged.levels.items():
        promised = [one for one in verdicts if one.guarantee in promises.PROMISES[level]]
        for one in broken.get(level, []):
            _row(table, f"level {level}: {one.guarantee}", one)
        if level not in broken:
            most_tested = max(promised, key=lambda found: found.tested)
            _row(table, f"level {level}, all {len(promised)} guarantees", most_tested)
    done = judged.counts
    faults = sum(count for kind, count in done.items() if kind != DELAY)
    each = ", ".join(f"{kind} {count}" for kind, count in sorted(done.items()))
    parts: list[Any] = [table, f"\n{faults} kills and faults, {done.get(DELAY, 0)} changes of delay: {each}"]
    if (lost := record.losses).writes:
        unnamed = f", {len(lost.forgotten):,} unnamed (primary killed)" if lost.forgotten else ""
        parts.append(f"lost and named: {len(lost.named):,} writes{unnamed}")
    if refused := [one for one in record.done if one.refused]:
        example = escape(f"{refused[0].act.kind} {refused[0].act.target}: {refused[0].refused}")
        parts.append(f"{len(refused)} could not be done, for example: {example}")
    for found in [*judged.verdicts, *(one for verdicts in broken.values() for one in verdicts)]:
        if found.words:
            parts.append(escape(f"\n{found.guarantee}, smallest counterexample:\n  {found.words}"))
            parts += [report.since(record.history, operation) for operation in found.operations]
    verdict = "[bold green]Clean.[/]" if judged.clean else "[bold red]Not clean.[/]"
    return Group(*parts, f"\n{verdict} Again: {escape(judged.again)}")


def _row(table: Table, name: str, found: Verdict) -> None:
    style = "green" if found.judgement == "held" else "bold red"
    table.add_row(name, f"[{style}]{found.judgement}[/]", *report.numbers(found))
