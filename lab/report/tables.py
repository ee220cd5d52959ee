"""Results of an experiment as tables, for the terminal and for the page."""

import json
import math
from typing import Any

from rich.table import Table

from lab.terminal import table

_LINES = 15
_PERCENTILES = ("p50", "p95", "p99")
_IN_MS = "Waiting for an answer, in milliseconds"

Rows = tuple[str, list[str], list[list[str]]]


def tables(kind: str, spec: dict[str, Any], result: dict[str, Any]) -> list[Table]:
    found = []
    for title, headings, rows in rows_of(kind, spec, result):
        found.append(table(*headings, right=headings[1:], title=title))
        for row in rows:
            found[-1].add_row(*row)
    return found


def rows_of(kind: str, spec: dict[str, Any], result: dict[str, Any]) -> list[Rows]:
    """Title, headings and rows of each table; a partial result has fewer."""
    if kind == "sweep":
        return _sweep(spec, result)
    found = _OF[kind](result)
    troubles = [[name, str(result[name])] for name in ("timeouts", "errors") if result.get(name)]
    if result.get("error"):
        troubles.append(["the last error", result["error"]])
    return [*found, ("Trouble", ["", ""], troubles)] if troubles else found


def _windows(result: dict[str, Any]) -> list[Rows]:
    rows = [_spread_row("consistency window", result["window_ms"])]
    rows += [_spread_row(f"{replica}: commit to apply", found) for replica, found in result["applied_after_ms"].items()]
    if "converged" in result:
        rows.append(["predicted and measured differ by", f"{result['converged']['rmse']:.2%}", *[""] * 4])
    return [("Milliseconds", ["", "count", *_PERCENTILES, "max"], rows)]


def _staleness(result: dict[str, Any]) -> list[Rows]:
    curve = result["stale"]
    steps = range(len(curve["t_ms"]))
    every = max(1, math.ceil(len(steps) / _LINES))
    predicted = curve.get("predicted")
    rows = [
        [f"{curve['t_ms'][step]:.0f}", str(curve["reads"][step]), f"{curve['measured'][step]:.1%}",
         f"{predicted[step]:.1%}" if predicted else ""]
        for step in steps[::every]
    ]  # fmt: skip
    if "rmse" in curve:
        rows.append([f"all {len(steps)} steps", str(result["reads"]), "RMSE", f"{curve['rmse']:.2%}"])
    return [("P(a read is stale)", ["ms after the write", "reads", "measured", "predicted"], rows)]


def _quorum(result: dict[str, Any]) -> list[Rows]:
    ((_, headings, rows),) = _staleness(result)
    title = f"P(a read is stale), n={result['n']} r={result['r']} w={result['w']}"
    found: list[Rows] = [(title, ["ms after w acknowledgements", *headings[1:]], rows)]
    if "newest" not in result:
        return found
    newest = result["newest"]
    measured = newest.get("measured", [None] * len(newest["k"]))
    rows = [
        [str(k), "" if share is None else f"{share:.1%}", f"{predicted:.1%}"]
        for k, share, predicted in zip(newest["k"], measured, newest["predicted"], strict=True)
    ]
    found.append(("P(a read shows one of the newest k versions)", ["k", "measured", "predicted"], rows))
    rows = [
        [f"{name}, {how}", str(spread.get("count", "")), *_figures(spread)]
        for name in ("write", "read")
        for how, spread in result[f"{name}_ms"].items()
    ]
    return [*found, ("Latency in milliseconds", ["", "count", *_PERCENTILES], rows)]


def _levels(result: dict[str, Any]) -> list[Rows]:
    rows = [
        [*_spread_row(level, found["waited_ms"]), f"{found['stale']:.1%}", f"{found['own_write']:.1%}",
         str(found["refused"] + found["errors"])]
        for level, found in result["levels"].items()
    ]  # fmt: skip
    headings = ["level", "reads", *_PERCENTILES, "max", "stale", "saw the own write", "failed"]
    return [(_IN_MS, headings, rows)]


def _sweep(spec: dict[str, Any], result: dict[str, Any]) -> list[Rows]:
    kind, steps = spec["experiment"]["kind"], result["steps"]
    values = [json.dumps(step["value"]) for step in steps]
    if kind == "windows":
        rows = [_spread_row(value, step["result"]["window_ms"]) for value, step in zip(values, steps, strict=True)]
        return [("Consistency window in milliseconds", [result["parameter"], "count", *_PERCENTILES, "max"], rows)]
    if kind in {"staleness", "quorum"}:
        rows = [
            [value, str(found["reads"]), f"{found['stale']['rmse']:.2%}" if "rmse" in found["stale"] else ""]
            for value, found in zip(values, (step["result"] for step in steps), strict=True)
        ]
        return [("P(a read is stale)", [result["parameter"], "reads", "RMSE"], rows)]
    rows = [
        [value, level, *_spread_row("", found["waited_ms"])[1:], f"{found['stale']:.1%}"]
        for value, step in zip(values, steps, strict=True)
        for level, found in step["result"]["levels"].items()
    ]
    headings = [result["parameter"], "level", "reads", *_PERCENTILES, "max", "stale"]
    return [(_IN_MS, headings, rows)]


def _spread_row(name: str, spread: dict[str, Any]) -> list[str]:
    return [name, str(spread["count"]), *_figures(spread, *_PERCENTILES, "max")]


def _figures(spread: dict[str, Any], *names: str) -> list[str]:
    return ["" if spread[name] is None else f"{spread[name]:.1f}" for name in names or _PERCENTILES]


_OF = {"windows": _windows, "staleness": _staleness, "levels": _levels, "quorum": _quorum}
