"""``lab predict``: curves of staleness, from delay models alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from broker.delay import DelayModel, Order, from_json
from broker.delay.prediction import Curve, Replicated, moments, newest, predict, replicated
from broker.delay.quorum import Floats, Ways, simulate
from broker.stats import quantile_of_sorted
from lab.client import NodeUnreachable, get
from lab.errors import LabError
from lab.local import state
from lab.prediction import measured
from lab.terminal import console
from lab.text import plain
from nodes.http import strict_json

_BAR_WIDTH = 30
_FINE = 4001
_PERCENTS = (50, 95, 99)
_NEWEST = (1, 2, 3, 5, 10)


class ModelType(click.ParamType[Any]):
    """A delay model on the command line: milliseconds, JSON, or a CSV file of measured delays."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DelayModel:
        """Read it, or say what it may be."""
        text = str(value)
        try:
            if text.lower().endswith(".csv"):
                found = measured.read(Path(text))
                click.echo(plain(f"{text}: {found}"), err=True)
                return from_json({"kind": "trace", "delays_ms": found.delays_ms})
            given = strict_json.loads(text.encode())
            return from_json({"kind": "fixed", "ms": given} if isinstance(given, int | float) else given)
        except (ValueError, LabError) as error:
            why = plain(str(error))
            self.fail(f"{text[:60]!r} is neither milliseconds, nor a delay model, nor a .csv file: {why}", param, ctx)


def replicas(
    data_dir: Path, *, given: tuple[DelayModel, ...], order: Order | None, rate: float, points: int, as_json: bool
) -> None:
    """Print what is predicted of these replicas, or of the running lab's. Raises ``LabError``."""
    predicted = [Replicated(model, order or "log", rate) for model in given] or _of_lab(data_dir, order, rate)
    longest_ms = max(replica.model.quantile_ms(0.99) for replica in predicted)
    curve = predict(predicted, moments(max(1.0, 1.2 * longest_ms), points))
    if as_json:
        click.echo(json.dumps(_as_json(predicted, curve), indent=2))
        return
    out = console()
    for replica in predicted:
        out.print(
            f"{replica.order} order, {rate:g} writes/s: {json.dumps(replica.model.as_json())[:100]}", markup=False
        )
    out.print(_table(curve))
    fine = predict(predicted, moments(4 * longest_ms + 1, _FINE))
    window = ", ".join(f"p{percent} {_quantile(fine, percent)}" for percent in _PERCENTS)
    out.print(f"consistency window: {window}")
    shares = ", ".join(f"{k}: {newest(predicted, k):.1%}" for k in _NEWEST)
    out.print(f"a read shows one of the newest k writes: {shares}")


def quorum(ways: Ways, *, n: int, r: int, w: int, trials: int, seed: int, as_json: bool) -> None:
    """Print what WARS says of a partial quorum. Raises ``LabError``."""
    try:
        found = simulate(ways, n=n, r=r, w=w, trials=trials, seed=seed)
    except ValueError as error:
        raise LabError(str(error)) from None
    figures = {
        "consistent_at_once": round(found.consistent(0), 5),
        "consistent_within_ms": {f"p{share:g}": round(found.within(share / 100), 3) for share in (50, 90, 99, 99.9)},
        "read_latency_ms": _spread(found.read_latency),
        "write_latency_ms": _spread(found.write_latency),
    }
    if as_json:
        click.echo(json.dumps({"n": n, "r": r, "w": w, "trials": trials, "seed": seed, **figures}, indent=2))
        return
    out = console()
    out.print(f"N={n} R={r} W={w}, {trials:,} trials")
    for name, figure in figures.items():
        shown = ", ".join(f"{key} {value}" for key, value in figure.items()) if isinstance(figure, dict) else figure
        out.print(f"  {name.replace('_', ' '):22} {shown}")


def _of_lab(data_dir: Path, order: Order | None, rate: float) -> list[Replicated]:
    primary = state.require(data_dir).node_or_none("primary")
    if primary is None:
        raise LabError("the lab has no primary")
    try:
        found = get(f"{primary.url}/admin/replication-delays")
    except NodeUnreachable as error:
        raise LabError(str(error)) from None
    return replicated(found, rate, order)


def _table(curve: Curve) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("ms after the write", justify="right")
    table.add_column("P(stale)", justify="right")
    table.add_column("")
    table.add_column("P(converged)", justify="right")
    for t_ms, stale, converged in zip(curve.t_ms, curve.stale, curve.converged, strict=True):
        bar = "█" * round(stale * _BAR_WIDTH)
        table.add_row(f"{t_ms:.0f}", f"{stale:.1%}", f"{bar:{_BAR_WIDTH}}", f"{converged:.1%}")
    return table


def _as_json(predicted: list[Replicated], curve: Curve) -> dict[str, Any]:
    return {
        "replicas": [{"model": one.model.as_json(), "order": one.order, "rate": one.rate} for one in predicted],
        "t_ms": _rounded(curve.t_ms, 3),
        "stale": _rounded(curve.stale, 6),
        "converged": _rounded(curve.converged, 6),
        "newest": {str(k): round(newest(predicted, k), 6) for k in _NEWEST},
    }


def _quantile(curve: Curve, percent: int) -> str:
    found = curve.converged_ms(percent / 100)
    return f"beyond {curve.t_ms[-1]:.0f} ms" if found is None else f"{found:.0f} ms"


def _spread(ms: Floats) -> dict[str, float]:
    return {f"p{percent:g}": round(quantile_of_sorted(ms, percent / 100), 3) for percent in (50, 99, 99.9)}


def _rounded(numbers: Sequence[float], digits: int) -> list[float]:
    return [round(number, digits) for number in numbers]
