"""A run as figures, for the table, for scripts and for a report; and as delays, for the lab.

``None`` stands for what is not known.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from broker.stats import Spread, spread
from lab.probe.brackets import Bracket
from lab.probe.certainty import EFFECTIVE_MIN, SHARES, TIMES_SECONDS, Bounds, Certainty
from lab.probe.instrument import Replica, Run

TRACE_HEADING = "sent at (seconds),at least (ms),at most (ms),middle or at least (ms)"


class Interval(TypedDict):
    """``at_least`` and ``at_most``: for certain, of the run's writes; ``low`` and ``high``: with 95 % confidence."""

    at_least: float | None
    at_most: float | None
    low: float | None
    high: float | None


class Stale(Interval):
    """Share of the writes not visible ``after_ms`` milliseconds after their acknowledgement.

    ``configured``: what the settings of a lab predict, at least and at most; ``None`` for every other store.
    """

    after_ms: float
    configured: tuple[float, float] | None


class BracketFigures(TypedDict):
    """``sent_seconds``: since the start of the run; ``low_ms`` and ``high_ms``: since the acknowledgement."""

    number: int
    sent_seconds: float
    write_ms: float
    low_ms: float
    high_ms: float | None


class ReplicaFigures(TypedDict):
    """``effective``: the number of independent writes that the run is worth. ``unseen``: writes not seen by the end.

    ``unseen_at_least_ms``: for how long at least one of them was not visible.
    """

    name: str
    settings: Mapping[str, str]
    warnings: Sequence[str]
    writes: int
    effective: int
    unseen: int
    unseen_at_least_ms: float | None
    quantiles_ms: dict[str, Interval]
    stale: list[Stale]
    bracket_ms: Spread
    read_ms: Spread
    reads: int
    errors: int
    brackets: list[BracketFigures]


class Figures(TypedDict):
    """``ended``: why the run ended early, or ``None``. ``late_ms``: how late the writes were sent."""

    primary: str
    settings: Mapping[str, str]
    warnings: Sequence[str]
    seconds: float
    ended: str | None
    not_removed: str | None
    writes: int
    errors: int
    write_ms: Spread
    late_ms: Spread
    replicas: list[ReplicaFigures]


def figures(run: Run) -> Figures:
    return {
        "primary": run.primary,
        "settings": run.settings.values,
        "warnings": run.settings.warnings,
        "seconds": round(run.seconds, 3),
        "ended": run.ended or None,
        "not_removed": run.not_removed or None,
        "writes": len(run.writes),
        "errors": run.errors,
        "write_ms": spread(_ms_all(run.round_trip_seconds)),
        "late_ms": spread(_ms_all(run.late_seconds)),
        "replicas": [_of_replica(replica, run) for replica in run.replicas],
    }


def calibrate(found: Figures, configured: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Add the configured staleness of each replica at each time."""
    for replica, shares in zip(found["replicas"], configured, strict=True):
        for stale, (at_least, at_most) in zip(replica["stale"], shares, strict=True):
            stale["configured"] = round(at_least, 6), round(at_most, 6)


def trace(run: Run, replica: Replica) -> str:
    """Return the measured delays as CSV, which ``lab predict`` and the delay model ``trace`` take: the last column.

    That is the middle of a write's bracket; the lower end if the write was not seen by the end of the run.
    """
    lines = [TRACE_HEADING]
    for one in replica.brackets:
        at_least = max(0.0, one.window[0])
        at_most = None if one.window[1] is None else max(0.0, one.window[1])
        delay = at_least if at_most is None else (at_least + at_most) / 2
        shown = (_ms(at_least), _ms(at_most), _ms(delay))
        cells = (f"{one.sent - run.started:.3f}", *("" if ms is None else f"{ms:g}" for ms in shown))
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def _of_replica(replica: Replica, run: Run) -> ReplicaFigures:
    found = Certainty([one.window for one in replica.brackets])
    unseen = [one for one in replica.brackets if one.high is None]
    return {
        "name": replica.name,
        "settings": replica.settings.values,
        "warnings": [*replica.settings.warnings, *_warnings(replica, found)],
        "writes": found.count,
        "effective": int(found.effective),
        "unseen": len(unseen),
        "unseen_at_least_ms": _ms(max((one.low - one.acked for one in unseen), default=None)),
        "quantiles_ms": {f"p{share * 100:g}": _interval(found.quantile(share), 1000, 3) for share in SHARES},
        "stale": [
            {"after_ms": at * 1000, **_interval(bounds, 1, 6), "configured": None}
            for at, bounds in zip(TIMES_SECONDS, found.curve(), strict=True)
        ],
        "bracket_ms": spread([width for one in replica.brackets if (width := _width_ms(one)) is not None]),
        "read_ms": spread(_ms_all(replica.round_trip_seconds)),
        "reads": replica.reads,
        "errors": replica.errors,
        "brackets": [_bracket(one, run) for one in replica.brackets],
    }


def _bracket(one: Bracket, run: Run) -> BracketFigures:
    return {
        "number": one.number,
        "sent_seconds": round(one.sent - run.started, 6),
        "write_ms": round((one.acked - one.sent) * 1000, 3),
        "low_ms": round(one.window[0] * 1000, 3),
        "high_ms": _ms(one.window[1]),
    }


def _warnings(replica: Replica, found: Certainty) -> list[str]:
    sentences = []
    if replica.was_replica is False:
        sentences.append("it is a primary, not a replica")
    if found.count and found.effective < EFFECTIVE_MIN:
        sentences.append(
            f"its {found.count} writes are worth {found.effective:.0f} independent ones, fewer than {EFFECTIVE_MIN}: "
            "this describes these seconds only"
        )
    return sentences


def _interval(bounds: Bounds, factor: float, digits: int) -> Interval:
    at_least, at_most, low, high = (None if one is None else round(one * factor, digits) for one in bounds)
    return {"at_least": at_least, "at_most": at_most, "low": low, "high": high}


def _width_ms(one: Bracket) -> float | None:
    return None if one.high is None else (one.high - one.low) * 1000


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _ms_all(seconds: Sequence[float]) -> list[float]:
    return [one * 1000 for one in seconds]
