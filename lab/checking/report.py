"""Verdicts on a history, for a terminal and for scripts."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from broker.stats import Spread, spread
from lab import terminal
from lab.checking.history import History, Operation
from lab.checking.promises import broken, promised
from lab.checking.verdict import Verdict

_STYLES = {"held": "green", "violated": "yellow", "not tested": "dim", "unknown": "magenta"}


def table(title: str, *columns: str) -> Table:
    numbers = ("tested on", "violations")
    return terminal.table(*columns, *numbers, right=numbers, title=title)


def numbers(found: Verdict) -> tuple[str, str]:
    return f"{found.tested:,}", f"{found.violations:,}" if found.violations else ""


def picture(history: History, verdicts: list[Verdict]) -> Group:
    level, kept = history.plan.level, promised(history.plan)
    word = "expected" if level == "observed" else "promised"
    shown = table(f"level {level}: {counted(operations(history))}", "guarantee", word, "verdict")
    bad = {found.guarantee for found in broken(history.plan, verdicts)}
    for found in verdicts:
        style = "bold red" if found.guarantee in bad else _STYLES[found.judgement]
        is_promised = "yes" if found.guarantee in kept else "no"
        shown.add_row(found.guarantee, is_promised, f"[{style}]{found.judgement}[/]", *numbers(found))
    parts: list[Any] = [shown, *(f"{kind}s waited: {_waited(took_ms(history, kind))}" for kind in ("read", "write"))]
    for found in verdicts:
        if found.words:
            name = "smallest counterexample" if found.judgement == "violated" else found.judgement
            parts.append(f"\n{found.guarantee}, {name}:")
            parts += [f"  {since(history, operation)}" for operation in found.operations]
            parts.append(escape(f"  {found.words}"))
    if bad:
        told = "expected" if level == "observed" else f"{level} promises"
        parts.append(f"\n[bold red]{told} {', '.join(sorted(bad))}, which did not hold.[/]")
    return Group(*parts)


def as_json(history: History, verdicts: list[Verdict]) -> dict[str, Any]:
    kept = promised(history.plan)
    return {
        "plan": asdict(history.plan),
        "operations": dict(operations(history)),
        "took_ms": {kind: took_ms(history, kind) for kind in ("read", "write")},
        "kept": not broken(history.plan, verdicts),
        "verdicts": [{**found.as_json(), "promised": found.guarantee in kept} for found in verdicts],
    }


def took_ms(history: History, kind: str) -> Spread:
    """Return the time that reads waited for their level, or for any response, and writes for their acknowledgement."""
    if kind == "read" and history.plan.level != "observed":
        return spread([found.waited_ms for found in history.reads])
    answered = history.reads if kind == "read" else history.writes
    return spread([(found.returned_us - found.invoked_us) / 1000 for found in answered])


def _waited(found: Spread) -> str:
    if not found["count"]:
        return "there were none"
    return ", ".join(f"{name} {found[name]:.1f} ms" for name in ("p50", "p95", "p99")) + f", of {found['count']:,}"


def operations(history: History) -> Counter[str]:
    """Return how many operations there were, by kind and outcome."""
    return Counter(f"{found.kind} {found.outcome}" for found in history.operations)


def counted(done: Counter[str]) -> str:
    failed = sum(count for name, count in done.items() if not name.endswith(" ok"))
    rest = f", {failed:,} failed or unknown" if failed else ""
    return f"{done['write ok']:,} writes, {done['read ok']:,} reads{rest}"


def since(history: History, operation: Operation) -> str:
    start, end = ((at - history.began_us) / 1e6 for at in (operation.invoked_us, operation.returned_us))
    return escape(f"{start:9.3f} s to {end:9.3f} s  operation {operation.index}")
