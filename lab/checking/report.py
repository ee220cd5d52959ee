"""Verdicts as a person reads them, and as scripts do."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from broker.stats import Spread, spread
from lab.checking.history import History
from lab.checking.promises import broken, promised
from lab.checking.verdict import Verdict

_STYLES = {"held": "green", "violated": "yellow", "not tested": "dim", "unknown": "magenta"}


def picture(history: History, verdicts: list[Verdict]) -> Group:
    """A table of the guarantees, and the smallest counterexample of each that was violated."""
    level, order = history.plan.level, history.plan.order
    table = Table(box=None, pad_edge=False, title=f"level {level}: {counted(history)}", title_justify="left")
    for name in ("guarantee", "promised", "verdict"):
        table.add_column(name)
    for name in ("tested on", "violations"):
        table.add_column(name, justify="right")
    bad = {found.guarantee for found in broken(level, verdicts, order)}
    for found in verdicts:
        style = "bold red" if found.guarantee in bad else _STYLES[found.judgement]
        table.add_row(
            found.guarantee,
            "yes" if found.guarantee in promised(level, order) else "no",
            f"[{style}]{found.judgement}[/]",
            f"{found.tested:,}",
            f"{found.violations:,}" if found.violations else "",
        )
    parts: list[Any] = [table, *(f"{kind}s waited: {_waited(took_ms(history, kind))}" for kind in ("read", "write"))]
    for found in verdicts:
        if found.words:
            name = "smallest counterexample" if found.judgement == "violated" else found.judgement
            parts.append(f"\n{found.guarantee}, {name}:")
            parts += [f"  {since(history, operation)}" for operation in found.operations]
            parts.append(escape(f"  {found.words}"))
    if bad:
        parts.append(f"\n[bold red]{level} promises {', '.join(sorted(bad))}, and did not keep it.[/]")
    return Group(*parts)


def as_json(history: History, verdicts: list[Verdict]) -> dict[str, Any]:
    """The verdicts for scripts."""
    level, order = history.plan.level, history.plan.order
    return {
        "plan": asdict(history.plan),
        "operations": dict(Counter(f"{found.kind} {found.outcome}" for found in history.operations)),
        "took_ms": {kind: took_ms(history, kind) for kind in ("read", "write")},
        "kept": not broken(level, verdicts, order),
        "verdicts": [{**found.as_json(), "promised": found.guarantee in promised(level, order)} for found in verdicts],
    }


def took_ms(history: History, kind: str) -> Spread:
    """What reads waited for their level and writes for their acknowledgement."""
    if kind == "read":
        took = [found.waited_ms for found in history.reads]
    else:
        took = [(found.returned_us - found.invoked_us) / 1000 for found in history.writes]
    return spread(took)


def _waited(found: Spread) -> str:
    if not found["count"]:
        return "there were none"
    return ", ".join(f"{name} {found[name]:.1f} ms" for name in ("p50", "p95", "p99")) + f", of {found['count']:,}"


def counted(history: History) -> str:
    """How many operations there were, in words."""
    done = Counter((found.kind, found.outcome) for found in history.operations)
    failed = sum(count for (_, outcome), count in done.items() if outcome != "ok")
    rest = f", {failed:,} failed or unknown" if failed else ""
    return f"{done['write', 'ok']:,} writes, {done['read', 'ok']:,} reads{rest}"


def since(history: History, operation: Any) -> str:
    """When an operation was, since the history began."""
    begin, end = ((at - history.began_us) / 1e6 for at in (operation.invoked_us, operation.returned_us))
    return escape(f"{begin:9.3f} s to {end:9.3f} s  operation {operation.index}")
