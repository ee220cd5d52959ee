"""A run's figures as text, for the terminal and for a report."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from broker.stats import Spread
from lab import terminal
from lab.probe.figures import Figures, Interval, ReplicaFigures, Stale
from lab.report.tables import Rows

_COLUMNS = ("at least", "at most", "95 % from", "to")
UNKNOWN = "?"
_VALUE_MAX = 100  # characters of a setting, which can be a trace of thousands of delays


def picture(found: Figures) -> Group:
    """``at least`` and ``at most``: for certain, of the run's writes; the last two columns: of the store."""
    parts: list[Table | Text] = [Text(line) for line in about_run(found)]
    for replica in found["replicas"]:
        parts += [Text(""), _drawn(bounds(replica)), *map(Text, about_replica(replica))]
    return Group(*parts)


def about_run(found: Figures) -> Iterator[str]:
    if found["ended"]:
        yield f"The run ended after {found['seconds']:.0f} s: {found['ended']}."
    acknowledged = found["writes"] - found["errors"]
    yield f"{found['primary']}: {acknowledged:,} of {found['writes']:,} writes in {found['seconds']:.0f} s"
    yield f"  a write took {_spread(found['write_ms'])}; it was late by {_spread(found['late_ms'])}"
    yield from _settings(found["settings"], found["warnings"])


def about_replica(found: ReplicaFigures) -> Iterator[str]:
    if found["unseen"]:
        longest = f"the longest for at least {found['unseen_at_least_ms']:,.0f} ms"
        yield f"  {found['unseen']:,} writes were not visible by the end, {longest}"
    yield f"  brackets {_spread(found['bracket_ms'])}"
    yield f"  a read took {_spread(found['read_ms'])}; {found['reads']:,} reads, {found['errors']:,} errors"
    yield from _settings(found["settings"], found["warnings"])


def _settings(values: Mapping[str, str], warnings: Sequence[str]) -> Iterator[str]:
    if values:
        yield f"  {', '.join(f'{name} {value[:_VALUE_MAX]}' for name, value in values.items())}"
    yield from (f"  warning: {sentence}" for sentence in warnings)


def bounds(found: ReplicaFigures) -> Rows:
    title = f"{found['name']}: {found['writes']:,} writes, worth {found['effective']:,} independent ones"
    known = ["configured"] if any(stale["configured"] is not None for stale in found["stale"]) else []
    rows = [[f"{name} of the window", *_cells(it, "{:,.1f} ms")] for name, it in found["quantiles_ms"].items()]
    for stale in found["stale"]:
        after = f"{stale['after_ms']:,.0f} ms later" if stale["after_ms"] else "at the acknowledgement"
        rows.append([f"stale {after}", *_cells(stale, "{:.1%}"), *_configured(stale)])
    headings = ["", *_COLUMNS, *known]
    return title, headings, [[*row, ""][: len(headings)] for row in rows]


def _configured(stale: Stale) -> list[str]:
    if stale["configured"] is None:
        return []
    at_least, at_most = (f"{share:.1%}" for share in stale["configured"])
    return [at_least if at_least == at_most else f"{at_least}..{at_most}"]


def _drawn(found: Rows) -> Table:
    title, headings, rows = found
    shown = terminal.table(*headings, right=headings[1:])
    shown.title = Text(title)  # text, not markup
    for row in rows:
        shown.add_row(*row)
    return shown


def _cells(interval: Interval, form: str) -> list[str]:
    ends = (interval["at_least"], interval["at_most"], interval["low"], interval["high"])
    return [UNKNOWN if end is None else form.format(end) for end in ends]


def _spread(found: Spread) -> str:
    if not found["count"]:
        return UNKNOWN
    return ", ".join(f"{name} {found[name]:,.1f} ms" for name in ("p50", "p95", "max"))
