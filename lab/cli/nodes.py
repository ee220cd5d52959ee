"""The nodes of the store to probe, by their addresses."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import click

from lab.errors import LabError
from lab.local import state
from lab.probe.target import NotNow, Target

SYSTEMS = ("postgresql", "mysql", "redis", "etcd", "http", "lab")
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@|\b(?:ssl)?(?:password|passwd|pwd)\s*=", re.IGNORECASE)
Open = Callable[[], Target]


class Nodes(NamedTuple):
    """Functions that make a node; nothing is opened before its first operation."""

    primary: Open
    replicas: list[Open]


def nodes_of(chosen: dict[str, Any]) -> Nodes:
    """Raise ``LabError`` for an address with a password, and an unusable one."""
    system = chosen["system"]
    if system == "lab":
        from lab.probe import lab

        return Nodes(*lab.nodes(state.require(chosen["data_dir"])))
    primary, replicas = ("write", "reads") if system == "http" else ("primary", "replicas")
    return _addressed(system, chosen[primary], chosen[replicas], prompt=chosen["prompt"])


def _addressed(system: str, primary: str | None, replicas: tuple[str, ...], *, prompt: bool) -> Nodes:
    if primary is None:
        raise click.UsageError(f"Give {'--write' if system == 'http' else '--primary'}.")
    if any(map(_PASSWORD.search, (primary, *replicas))):
        raise LabError(
            "an address must not contain a password, which every user of this machine could read; give it in "
            "LAB_PROBE_PASSWORD, in PGPASSFILE or PGSERVICEFILE, or with --password at a prompt"
        )
    password = click.prompt("Password", hide_input=True, err=True) if prompt else os.environ.get("LAB_PROBE_PASSWORD")
    module = import_module(f"lab.probe.{system}")
    return Nodes(partial(module.node, primary, password), [partial(module.node, one, password) for one in replicas])


@contextmanager
def opened(nodes: Sequence[Open]) -> Iterator[list[Target]]:
    with ExitStack() as stack:
        found = [node() for node in nodes]
        for node in found:
            stack.callback(node.close)
        try:
            yield found
        except NotNow as error:
            raise LabError(str(error)) from error
