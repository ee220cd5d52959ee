"""``lab predict``: curves of staleness, from delay models alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from broker.delay.models import DelayModel, Order
from broker.delay.prediction import Curve, Replicated, moments, newest, replicated
from broker.delay.prediction import predict as curve_of
from broker.delay.quorum import Floats, Quorum, Ways, simulate
from broker.stats import quantile_of_sorted
from lab import client
from lab.cli.options import ModelType, Number, data_dir_option, json_option
from lab.errors import LabError
from lab.local import state
from lab.terminal import console, print_json, table

_BAR_WIDTH = 30
_FINE = 4001  # points of the curve for the window's percentiles
_PERCENTS = (50, 95, 99)
_NEWEST = (1, 2, 3, 5, 10)


@click.group()
def predict() -> None:
    """Predict the staleness of reads from delay models alone."""


@predict.command("replicas")
@data_dir_option
@click.option(
    "--replica",
    "given",
    type=ModelType(),
    multiple=True,
    help="Delay of a replica (repeatable): milliseconds, a model as JSON, or a .csv file; by default, those of the "
    "running lab's replicas.",
)
@click.option(
    "--order", type=click.Choice(["log", "arrival"]), help="Order of all replicas; by default the lab's, or log."
)
@click.option(
    "--rate",
    type=Number(0, 100_000),
    default=10.0,
    help="Writes per second: in log order one write holds back the next.",
)
@click.option("--points", type=click.IntRange(2, 1000), default=21, help="Lines of the table.")
@json_option()
def predict_replicas(
    data_dir: Path, given: tuple[DelayModel, ...], order: Order | None, rate: float, points: int, *, as_json: bool
) -> None:
    """P(a read is stale) and P(all replicas have the write), by the time since the write.

    \b
    Example: lab predict replicas --replica 500 --replica '{"kind": "exponential", "mean_ms": 1500}'
    """
    predicted = [Replicated(model, order or "log", rate) for model in given] or replicated(
        client.get(f"{state.url(data_dir, 'primary')}/admin/replication-delays"), rate, order
    )
    longest_ms = max(replica.model.quantile_ms(0.99) for replica in predicted)
    curve = curve_of(predicted, moments(max(1.0, 1.2 * longest_ms), points))
    if as_json:
        print_json(_as_json(predicted, curve))
        return
    out = console()
    for replica in predicted:
        model = json.dumps(replica.model.as_json())[:100]
        out.print(f"{replica.order} order, {rate:g} writes/s: {model}", markup=False)
    out.print(_table(curve))
    fine = curve_of(predicted, moments(4 * longest_ms + 1, _FINE))
    windows = {percent: fine.converged_ms(percent / 100) for percent in _PERCENTS}
    beyond = f"beyond {fine.t_ms[-1]:.0f} ms"
    shown = (f"p{percent} {beyond if ms is None else f'{ms:.0f} ms'}" for percent, ms in windows.items())
    out.print(f"consistency window: {', '.join(shown)}")
    shares = ", ".join(f"{k}: {newest(predicted, k):.1%}" for k in _NEWEST)
    out.print(f"a read shows one of the newest k writes: {shares}")


@predict.command("quorum")
@click.option("-n", "n", type=click.IntRange(1, 20), default=3, help="Number of replicas.")
@click.option("-r", "r", type=click.IntRange(1, 20), default=1, help="Answers a read waits for.")
@click.option("-w", "w", type=click.IntRange(1, 20), default=1, help="Acknowledgements a write waits for.")
@click.option("--write", type=ModelType(), required=True, help="Delay of a write on its way to a replica.")
@click.option("--ack", type=ModelType(), required=True, help="Delay of the acknowledgement on its way back.")
@click.option("--read", type=ModelType(), required=True, help="Delay of a read on its way to a replica.")
@click.option("--answer", type=ModelType(), required=True, help="Delay of the answer on its way back.")
@click.option("--remote-ms", type=Number(0, 10_000), default=0.0, help="Delay added to all replicas but one.")
@click.option("--trials", type=click.IntRange(1000, 20_000_000), default=1_000_000, help="Number of trials.")
@click.option("--seed", type=int, default=0, help="Random seed.")
@json_option()
def predict_quorum(*, remote_ms: float, as_json: bool, **given: Any) -> None:
    """Probabilistically bounded staleness of a partial quorum (WARS, Bailis et al. 2012).

    \b
    Example: lab predict quorum -w 2 --write '{"kind": "exponential", "mean_ms": 10}' --ack 1 --read 1 --answer 1
    """
    ways = Ways(**{name: given.pop(name) for name in ("write", "ack", "read", "answer")})
    try:
        quorum = Quorum([ways] * given["n"], given["r"], given["w"], remote_ms=remote_ms)
        found = simulate(quorum, trials=given["trials"], seed=given["seed"])
    except ValueError as error:
        raise LabError(str(error)) from None
    figures = {
        "consistent_at_once": round(found.consistent(0), 5),
        "consistent_within_ms": {f"p{share:g}": round(found.within(share / 100), 3) for share in (50, 90, 99, 99.9)},
        "read_latency_ms": _spread(found.read_latency),
        "write_latency_ms": _spread(found.write_latency),
    }
    if as_json:
        print_json({**given, **figures})
        return
    out = console()
    out.print(f"N={given['n']} R={given['r']} W={given['w']}, {given['trials']:,} trials")
    for name, figure in figures.items():
        shown = ", ".join(f"{key} {value}" for key, value in figure.items()) if isinstance(figure, dict) else figure
        out.print(f"  {name.replace('_', ' '):22} {shown}")


def _table(curve: Curve) -> Table:
    numbers = {"ms after the write", "P(stale)", "P(converged)"}
    shown = table("ms after the write", "P(stale)", "", "P(converged)", right=numbers)
    for t_ms, stale, converged in zip(curve.t_ms, curve.stale, curve.converged, strict=True):
        bar = "█" * round(stale * _BAR_WIDTH)
        shown.add_row(f"{t_ms:.0f}", f"{stale:.1%}", f"{bar:{_BAR_WIDTH}}", f"{converged:.1%}")
    return shown


def _as_json(predicted: list[Replicated], curve: Curve) -> dict[str, Any]:
    return {
        "replicas": [{"model": one.model.as_json(), "order": one.order, "rate": one.rate} for one in predicted],
        "t_ms": _rounded(curve.t_ms, 3),
        "stale": _rounded(curve.stale, 6),
        "converged": _rounded(curve.converged, 6),
        "newest": {str(k): round(newest(predicted, k), 6) for k in _NEWEST},
    }


def _spread(ms: Floats) -> dict[str, float]:
    return {f"p{percent:g}": round(quantile_of_sorted(ms, percent / 100), 3) for percent in (50, 99, 99.9)}


def _rounded(numbers: Sequence[float], digits: int) -> list[float]:
    return [round(number, digits) for number in numbers]
