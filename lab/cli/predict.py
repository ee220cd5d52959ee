"""``lab predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lab.cli.options import Number, data_dir_option


@click.group()
def predict() -> None:
    """Say how stale reads will be, from delay models alone; runs nothing."""


class _Model(click.ParamType[Any]):
    """Read by the command, so that the command line starts without what reads it."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from lab.prediction.command import ModelType

        return ModelType().convert(value, param, ctx)


@predict.command("replicas")
@data_dir_option
@click.option(
    "--replica",
    "given",
    type=_Model(),
    multiple=True,
    help="Its delay: milliseconds, a model as JSON, or a .csv file. Without any: the running lab's replicas.",
)
@click.option("--order", type=click.Choice(["log", "arrival"]), help="For all; otherwise the lab's, or log.")
@click.option(
    "--rate",
    type=Number(0, 100_000),
    default=10.0,
    show_default=True,
    help="Writes a second: in log order one write holds back the next.",
)
@click.option("--points", type=click.IntRange(2, 1000), default=21, show_default=True, help="Lines of the table.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def predict_replicas(data_dir: Path, **chosen: Any) -> None:
    """P(a read is stale) and P(all replicas have the write), by the time since the write.

    \b
    Example: lab predict replicas --replica 500 --replica '{"kind": "exponential", "mean_ms": 1500}'
    """
    from lab.prediction import command

    command.replicas(data_dir, **chosen)


@predict.command("quorum")
@click.option("-n", "n", type=click.IntRange(1, 20), default=3, show_default=True, help="Replicas.")
@click.option(
    "-r", "r", type=click.IntRange(1, 20), default=1, show_default=True, help="Answers that a read waits for."
)
@click.option("-w", "w", type=click.IntRange(1, 20), default=1, show_default=True, help="And a write.")
@click.option("--write", type=_Model(), required=True, help="The write's way to a replica.")
@click.option("--ack", type=_Model(), required=True, help="The acknowledgement's way back.")
@click.option("--read", type=_Model(), required=True, help="The read's way to a replica.")
@click.option("--answer", type=_Model(), required=True, help="The answer's way back.")
@click.option("--remote-ms", type=Number(0, 10_000), default=0.0, help="Added to all replicas but one.")
@click.option("--trials", type=click.IntRange(1000, 20_000_000), default=1_000_000, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="What is drawn is drawn from it.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def predict_quorum(write: Any, ack: Any, read: Any, answer: Any, remote_ms: float, **chosen: Any) -> None:
    """Probabilistically bounded staleness of a partial quorum (WARS, Bailis et al. 2012).

    \b
    Example: lab predict quorum -w 2 --write '{"kind": "exponential", "mean_ms": 10}' --ack 1 --read 1 --answer 1
    """
    from broker.delay.quorum import Ways
    from lab.prediction import command

    command.quorum(Ways(write, ack, read, answer, remote_ms), **chosen)
