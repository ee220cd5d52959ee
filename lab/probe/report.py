"""A run as a page: for each replica the bounds of P(stale) as bands, and the bracket of every write over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lab.checking.history import History, Operation
from lab.checking.promises import judge
from lab.checking.report import as_json, counted, numbers, operations, since
from lab.probe.certainty import Certainty
from lab.probe.figures import Figures, ReplicaFigures
from lab.probe.table import about_replica, about_run, bounds
from lab.report.page import CYCLE, MARKS, MEASURED, PREDICTED, Chart, Document, svg

if TYPE_CHECKING:  # lab.report.page says how to install it
    from matplotlib.axes import Axes

_TIMES = 150
_FIRST_SECONDS = 0.001
_LAST_SECONDS_MIN = 0.1
_PLAIN = "{x:,g}"  # not powers of ten
_BEYOND = 2  # times the largest value, where an axis ends


def page(found: Figures) -> str:
    replicas = found["replicas"]
    return Document(
        title=f"lab probe: {found['primary']}",
        heading="How stale reads of the replicas are",
        introduction=(
            "A write becomes visible, for certain, between the sending of the last stale read and the receipt of the "
            "first fresh one; both count from its acknowledgement. “At least” and “at most” are certain about this "
            "run's writes; the 95 % interval is about the store."
        ),
        charts=[chart for replica in replicas if replica["brackets"] for chart in _charts(replica)],
        tables=list(map(bounds, replicas)),
        texts=[
            ("Run", "\n".join(about_run(found))),
            *((replica["name"], "\n".join(about_replica(replica))) for replica in replicas),
        ],
        data=found,
    ).html()


def sessions_page(history: History) -> str:
    """The page of what sessions saw: the verdict on each guarantee, and its smallest counterexample."""
    verdicts = judge(history)
    rows = [[found.guarantee, found.judgement, *numbers(found)] for found in verdicts]
    primary = next((found.node for found in history.finals), "a store")
    return Document(
        title=f"lab probe: sessions on {primary}",
        heading="Which guarantees the sessions had",
        introduction=(
            f"{history.plan.sessions} sessions made {counted(operations(history))}. Each writes its own key to the "
            "primary, and reads the keys of all. A guarantee that held did so in this run."
        ),
        charts=[("Staleness of each read", svg(_reads(history)))] if history.reads else [],
        tables=[("Session guarantees", ["guarantee", "verdict", "tested on", "violations"], rows)],
        texts=[
            (
                f"{found.guarantee}: {'smallest counterexample' if found.judgement == 'violated' else found.judgement}",
                "\n".join([*(since(history, one) for one in found.operations), found.words]),
            )
            for found in verdicts
            if found.words
        ],
        data={
            **as_json(history, verdicts),
            "history": [found.as_json() for found in history.operations],
        },
    ).html()


def _reads(history: History) -> Callable[[Axes], None]:
    writes = history.writes_by_key()
    points: dict[str, list[tuple[float, float]]] = {}
    for read in history.reads:
        stale_ms = max((_age_ms(write, read) for write in writes.get(read.key, ())), default=0.0)
        points.setdefault(read.node, []).append(((read.invoked_us - history.began_us) / 1e6, stale_ms))

    def draw(axes: Axes) -> None:
        for number, (node, shown) in enumerate(points.items()):
            seconds, ms = zip(*shown, strict=True)
            mark, color = MARKS[number % len(MARKS)], CYCLE[number % len(CYCLE)]
            axes.plot(seconds, ms, mark, color=color, markersize=4, label=node)
        axes.set_yscale("symlog", linthresh=1)  # as a log scale, but with 0, for fresh reads
        axes.set(xlabel="seconds since the first operation", ylabel="milliseconds since the oldest\nmissing write")
        axes.set_ylim(0, _BEYOND * max(1.0, *(ms for shown in points.values() for _, ms in shown)))
        axes.yaxis.set_major_formatter(_PLAIN)
        _legend(axes)

    return draw


def _age_ms(write: Operation, read: Operation) -> float:
    """The time from the acknowledgement of a write to a read that does not show it; 0 if it does, or need not."""
    return max(0, read.invoked_us - write.returned_us) / 1000 if write.version > read.version else 0.0


def _charts(replica: ReplicaFigures) -> Iterator[Chart]:
    name = replica["name"]
    yield f"{name}: probability that a read is stale", svg(_stale(replica))
    yield f"{name}: when each write became visible", svg(_windows(replica))


def _stale(replica: ReplicaFigures) -> Callable[[Axes], None]:
    windows = [(one["low_ms"] / 1000, _seconds(one["high_ms"])) for one in replica["brackets"]]
    found = Certainty(windows)
    largest = max(end for window in windows for end in window if end is not None)
    times = np.geomspace(_FIRST_SECONDS, max(_LAST_SECONDS_MIN, _BEYOND * largest), _TIMES)
    at_least, at_most, low, high = zip(*found.curve(times), strict=True)
    calibrated = [(stale["after_ms"], *stale["configured"]) for stale in replica["stale"] if stale["configured"]]

    def draw(axes: Axes) -> None:
        ms = times * 1000
        axes.fill_between(ms, low, high, color=MEASURED, alpha=0.2, linewidth=0, label="95 % interval")
        axes.fill_between(ms, at_least, at_most, color=MEASURED, alpha=0.6, linewidth=1, label="certain, of this run")
        if calibrated:
            after_ms, lowest, highest = zip(*calibrated, strict=True)
            axes.vlines(after_ms, lowest, highest, color=PREDICTED, linewidth=3)
            axes.plot(after_ms, lowest, "o", color=PREDICTED, markersize=5, label="configured")
        axes.set(xscale="log", xlim=(ms[0], ms[-1]), ylim=(-0.03, 1.03))
        axes.set(xlabel="milliseconds after the acknowledgement", ylabel="P(a read is stale)")
        axes.xaxis.set_major_formatter(_PLAIN)
        _legend(axes)

    return draw


def _windows(replica: ReplicaFigures) -> Callable[[Axes], None]:
    seen = [
        (one["sent_seconds"], one["low_ms"], one["high_ms"])
        for one in replica["brackets"]
        if one["high_ms"] is not None
    ]
    unseen = [(one["sent_seconds"], one["low_ms"]) for one in replica["brackets"] if one["high_ms"] is None]

    def draw(axes: Axes) -> None:
        if seen:
            sent, low, high = np.maximum(0, np.array(seen)).T
            lines = axes.vlines(sent, low, high, color=MEASURED, linewidth=2, label="bracket of a write")
            lines.set_capstyle("round")  # a narrow one is a dot
        if unseen:
            sent, low = np.maximum(0, np.array(unseen)).T
            axes.plot(sent, low, "^", color=PREDICTED, markersize=6, label="not visible by the end: later than this")
        axes.set_yscale("symlog", linthresh=1)  # as a log scale, but with 0
        axes.set(xlabel="seconds since the start of the run", ylabel="milliseconds after the\nacknowledgement")
        axes.set_ylim(0, _BEYOND * max(1, *(end for one in (*seen, *unseen) for end in one[1:])))
        axes.yaxis.set_major_formatter(_PLAIN)
        _legend(axes)

    return draw


def _legend(axes: Axes) -> None:
    """Above the axes: inside, it would cover data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000
