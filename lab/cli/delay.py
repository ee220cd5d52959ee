"""``lab delay``: show and change the replicas' delays."""

from typing import Any
from urllib.parse import urlsplit

import click
from rich.table import Table
from rich.text import Text

from broker.delay.models import DelayModel, Order, from_json
from lab import client
from lab.cli.options import ModelType, client_option, json_option
from lab.terminal import console, plain, print_json, table

_MODELS = {"delay": "model", "ack": "ack_model", "read": "read_model"}  # options, and the fields of a request


@click.group()
def delay() -> None:
    """Show and change the replicas' delays and acknowledgement delays."""


@delay.command("show")
@client_option
@json_option()
def delay_show(client_url: str, *, as_json: bool) -> None:
    """Show the current settings of every replica.

    \b
    Example: lab delay show --json | jq '."lab14-replica2".ack_model'
    """
    found = _by_replica(client.get(f"{client_url}/delays"))
    if as_json:
        print_json(found)
    else:
        console().print(_picture(found))


@delay.command("set")
@click.argument("replica")
@click.option("--delay", type=ModelType(), help="Delay from commit to apply: milliseconds, a model as JSON, or a .csv.")
@click.option("--ack", type=ModelType(), help="Delay from apply to acknowledgement.")
@click.option("--read", type=ModelType(), help="Delay of a read before it sees the replica's store.")
@click.option("--order", type=click.Choice(["log", "arrival"]), help="Order in which entries are applied.")
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), help="Random seed of the delays.")
@client_option
def delay_set(
    replica: str, order: Order | None, seed: int | None, client_url: str, **models: DelayModel | None
) -> None:
    """Change settings of a replica, also for entries already waiting; omitted ones keep their value.

    \b
    Example: lab delay set lab14-replica2 --delay 1500 --ack '{"kind": "exponential", "mean_ms": 300}'
    """
    delays = {name: model for name, model in models.items() if model is not None}
    rest = {name: value for name, value in (("order", order), ("seed", seed)) if value is not None}
    if not delays and not rest:
        raise click.UsageError("Give at least one of --delay, --ack, --read, --order and --seed.")
    fields = {_MODELS[name]: model.as_json() for name, model in delays.items()}
    client.post(f"{client_url}/delays", {"replica": replica, **fields, **rest})
    changes = {name: _shown(model.as_json()) for name, model in delays.items()} | rest
    said = ", ".join(f"{name} {value}" for name, value in changes.items())
    click.echo(plain(f"{replica}: {said}."))


def _by_replica(found: dict[str, Any]) -> dict[str, Any]:
    """The settings of each replica, named as in a request."""
    names = {"delays": "delay_ms", "models": "model", "orders": "order", "seeds": "seed"}
    names |= {f"{kind}_{name}": f"{kind}_{names[name]}" for kind in ("ack", "read") for name in ("delays", "models")}
    return {_replica(url): {name: found[several][url] for several, name in names.items()} for url in found["delays"]}


def _picture(found: dict[str, Any]) -> Table:
    shown = table("replica", "delay", "ack delay", "read delay", "order", "seed", right={"seed"})
    for replica, settings in found.items():
        delays = (_shown(settings[field]) for field in _MODELS.values())
        shown.add_row(*map(Text, (replica, *delays, settings["order"], str(settings["seed"]))))
    return shown


def _shown(model: dict[str, Any]) -> str:
    mean = f"{from_json(model).mean_ms:g} ms"
    return mean if model["kind"] == "fixed" else f"{model['kind']}, mean {mean}"


def _replica(url: str) -> str:
    return str(urlsplit(url).hostname)
