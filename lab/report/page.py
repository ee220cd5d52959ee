"""An experiment as one self-contained page: its settings, its results with charts, and every measurement."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment
from markupsafe import Markup

from lab.errors import LabError
from lab.report.tables import Rows, rows_of

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError:
    raise LabError(
        "Charts need matplotlib: install it with `pip install 'eventual-consistency-lab[report]'`, "
        "or in a checkout with `make up`."
    ) from None

Chart = tuple[str, str]
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lab",  # the same data gives the same file
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
_SIZE_INCHES = (8.0, 3.6)
MEASURED, PREDICTED = "#0b6e99", "#c2410c"
CYCLE = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#a16207", "#be185d")
MARKS = ("o", "s", "^", "D", "v", "P")
_BINS = 40
_BAR = 0.4  # width, of the distance between two


@dataclass(frozen=True)
class Document:
    """What a page shows: text, and markup only in charts. ``data``: everything that was measured."""

    title: str
    heading: str
    introduction: str
    charts: list[Chart]
    tables: list[Rows]
    texts: list[tuple[str, str]]
    data: Any

    def html(self) -> str:
        source = files("lab.report").joinpath("report.html").read_text(encoding="utf-8")
        shown = {
            **vars(self),
            "charts": [(title, Markup(picture)) for title, picture in self.charts],  # noqa: S704 - our own SVG
            # Its text cannot end the surrounding script element.
            "data": Markup(json.dumps(self.data, separators=(",", ":")).replace("<", "\\u003c")),  # noqa: S704
        }
        return Environment(autoescape=True, trim_blocks=True).from_string(source).render(shown)


def page(experiment: dict[str, Any]) -> str:
    """The page of an experiment with its raw measurements. Raises ``LabError`` if there is nothing to show yet."""
    result = experiment["result"]
    name, state, kind, spec = (experiment[key] for key in ("id", "state", "kind", "spec"))
    if state != "finished" or result is None:
        raise LabError(f"experiment {name} is {state}: only a finished one has a report")
    reason = f": {experiment['reason']}" if experiment["reason"] else ""
    times = f"Started {experiment['started_at'] or 'never'}, ended {experiment['ended_at'] or 'not yet'}."
    texts = {"Configuration": spec, "Replicas while it ran": result.get("settings")}
    versions: Rows = ("Versions", ["", ""], [list(one) for one in result.get("versions", {}).items()])
    return Document(
        f"{kind} {name}",
        f"Experiment: {kind}",
        f"{name}, {state}{reason}. {times}",
        charts(kind, spec, result),
        [*rows_of(kind, spec, result), versions],
        [(title, yaml_text(found)) for title, found in texts.items()],
        experiment,
    ).html()


def yaml_text(found: Any) -> str:
    return "" if found is None else yaml.safe_dump(found, sort_keys=False, allow_unicode=True)


def charts(kind: str, spec: dict[str, Any], result: dict[str, Any]) -> list[Chart]:
    if kind == "sweep":
        return [_sweep(spec["experiment"]["kind"], result)]
    return _OF[kind](result)


def svg(draw: Callable[[Axes], None], size_inches: tuple[float, float] = _SIZE_INCHES) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size_inches, layout="constrained")
        draw(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=False, metadata={"Date": None})
    text = out.getvalue()
    # Without the XML declaration, which is for separate files, and the size in points, which ignores the page's width.
    text = text[text.index("<svg") :]
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"|(<svg[^>]*?) height="[^"]*"', r"\1\2", text, count=1)


def _staleness_axes(axes: Axes, curve: dict[str, Any], name: str) -> None:
    if "predicted" in curve:
        axes.plot(curve["t_ms"], curve["predicted"], color=PREDICTED, linewidth=2, label=f"{name}: predicted")
    axes.plot(curve["t_ms"], curve["measured"], "o", color=MEASURED, markersize=5, label=f"{name}: measured")
    axes.set(xlabel="milliseconds after the write", ylabel="P(a read is stale)", ylim=(-0.03, 1.03), xlim=(0, None))
    axes.legend()


def _windows(result: dict[str, Any]) -> list[Chart]:
    converged = result["converged"]
    windows = [window for window in result["raw"]["window_ms"] if window is not None]

    def curve(axes: Axes) -> None:
        axes.plot(converged["t_ms"], converged["predicted"], color=PREDICTED, linewidth=2, label="predicted")
        axes.plot(converged["t_ms"], converged["measured"], "o", color=MEASURED, markersize=4, label="measured")
        axes.set(xlabel="milliseconds after the write", ylabel="P(all replicas have it)", ylim=(-0.03, 1.03))
        axes.legend()

    def histogram(axes: Axes) -> None:
        axes.hist(windows, bins=_BINS, color=MEASURED)
        for name, style in (("p50", "-"), ("p95", "--"), ("p99", ":")):
            value = result["window_ms"][name]
            axes.axvline(value, color=PREDICTED, linestyle=style, label=f"{name} {value:.1f} ms")
        axes.set(xlabel="consistency window in milliseconds", ylabel="writes")
        axes.legend()

    found = [("Probability that all replicas have a write", svg(curve))]
    return [*found, ("Length of the windows", svg(histogram))] if windows else found


def _staleness(result: dict[str, Any]) -> list[Chart]:
    curves = {"all": result["stale"], **result["replicas"]}
    of_all = "Probability that a read of a random replica is stale"
    titles = [of_all, *(f"Reads of {replica}" for replica in result["replicas"])]
    pictures = (svg(partial(_staleness_axes, curve=curve, name=name)) for name, curve in curves.items())
    return list(zip(titles, pictures, strict=True))


def _quorum(result: dict[str, Any]) -> list[Chart]:
    name = f"n={result['n']} r={result['r']} w={result['w']}"
    newest = result["newest"]
    places = np.arange(len(newest["k"]))

    def bars(axes: Axes) -> None:
        for number, (how, color) in enumerate((("measured", MEASURED), ("predicted", PREDICTED))):
            if how in newest:
                axes.bar(places + (number - 0.5) * _BAR, newest[how], _BAR, color=color, label=how)
        axes.set(xlabel="k", ylabel="P(one of the newest k versions)", ylim=(0, 1.03))
        axes.set_xticks(places, [str(k) for k in newest["k"]])
        axes.legend(loc="lower right")

    def curve(axes: Axes) -> None:
        _staleness_axes(axes, result["stale"], name)
        axes.set_xlabel("milliseconds after w acknowledgements")

    stale = ("Probability that a read is stale", svg(curve))
    return [stale, ("Probability that a read shows one of the newest k versions", svg(bars))]


def _levels(result: dict[str, Any]) -> list[Chart]:
    def draw(axes: Axes) -> None:
        for number, (level, waited) in enumerate(result["raw"]["waited_ms"].items()):
            ordered = np.sort(np.maximum(waited, 0.1))
            share = np.arange(1, len(ordered) + 1) / max(1, len(ordered))
            axes.step(ordered, share, where="post", label=level, color=CYCLE[number], linewidth=2)
        axes.set(xscale="log", xlabel="milliseconds until the answer", ylabel="share of the reads", ylim=(-0.03, 1.03))
        axes.legend()

    return [("Time a reader waits at each level", svg(draw))]


def _sweep(kind: str, result: dict[str, Any]) -> Chart:
    steps = result["steps"]
    names = [json.dumps(step["value"])[:24] for step in steps]

    def over_values(axes: Axes, lines: dict[str, list[float | None]], label: str) -> None:
        for number, (name, values) in enumerate(lines.items()):
            shown = [np.nan if value is None else value for value in values]
            axes.plot(range(len(values)), shown, marker=MARKS[number], color=CYCLE[number], label=name)
        axes.set(xlabel=result["parameter"], ylabel=label, ylim=(0, None))
        axes.set_xticks(range(len(steps)), names)
        axes.legend()

    if kind == "windows":
        lines = {name: [step["result"]["window_ms"][name] for step in steps] for name in ("p50", "p95", "p99")}
        return ("Consistency windows", svg(lambda axes: over_values(axes, lines, "milliseconds")))
    if kind == "levels":
        levels = list(steps[0]["result"]["levels"])
        lines = {lvl: [step["result"]["levels"][lvl]["waited_ms"]["p50"] for step in steps] for lvl in levels}
        return ("Median wait for an answer", svg(lambda axes: over_values(axes, lines, "milliseconds")))

    def curves(axes: Axes) -> None:
        for number, step in enumerate(steps):
            curve, color, mark = step["result"]["stale"], CYCLE[number % len(CYCLE)], MARKS[number % len(MARKS)]
            axes.plot(curve["t_ms"], curve.get("predicted", []), color=color)
            axes.plot(curve["t_ms"], curve["measured"], mark, color=color, markersize=4, label=names[number])
        axes.set(xlabel="milliseconds after the write", ylabel="P(a read is stale)", ylim=(-0.03, 1.03), xlim=(0, None))
        axes.legend(title=result["parameter"])

    return ("Probability that a read is stale (lines: predicted)", svg(curves))


_OF = {"windows": _windows, "staleness": _staleness, "levels": _levels, "quorum": _quorum}
