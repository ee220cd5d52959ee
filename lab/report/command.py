"""``lab experiment``: submit experiments, watch them, show what came of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lab import files, plain_yaml
from lab.client import NodeUnreachable, call
from lab.errors import LabError
from lab.local import state
from lab.report import tables
from lab.terminal import console
from nodes.experiments.spec import ENDED
from nodes.http.peers import segment

KINDS = ("windows", "staleness", "levels", "sweep")
_BAR_WIDTH = 40
_LOOK_SECONDS = 0.25
_AWAY_SECONDS = 30.0
_FILE_BYTES_MAX = 256 * 1024
_SHOWN_MAX = 100


class Away(LabError):
    """Raised while the client service does not answer."""


class Experiments:
    """The experiments of a client service. Methods raise ``LabError``."""

    def __init__(self, data_dir: Path, client_url: str | None) -> None:
        """``client_url``: where the lab does not run from the data directory."""
        self._url = client_url or state.client_url(data_dir)

    def submit(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Put an experiment in the queue."""
        return self._ask("POST", "", spec)

    def all(self) -> list[dict[str, Any]]:
        """Every experiment, the newest first."""
        found: list[dict[str, Any]] = self._ask("GET", "")["experiments"]
        return found

    def get(self, name: str, *, raw: bool = False) -> dict[str, Any]:
        """One experiment."""
        return self._ask("GET", f"/{segment(name)}" + ("?raw=true" if raw else ""))

    def cancel(self, name: str) -> dict[str, Any]:
        """Cancel one, and return it when it has ended."""
        self._ask("DELETE", f"/{segment(name)}")
        return self.wait(name, Console(quiet=True))

    def wait(self, name: str, out: Console) -> dict[str, Any]:
        """Show how far it is until it has ended. A client that is away meanwhile is waited for, but not for ever."""
        columns = (TextColumn("{task.description}"), BarColumn(_BAR_WIDTH), TaskProgressColumn(), TimeRemainingColumn())
        answered_at = time.monotonic()
        with Progress(*columns, console=out, transient=True) as progress:
            bar = progress.add_task(name, total=1.0)
            while True:
                try:
                    found = self.get(name)
                except Away as error:
                    if time.monotonic() - answered_at > _AWAY_SECONDS:
                        raise LabError(f"{error}; the experiment goes on: `lab experiment show {name}`") from None
                else:
                    answered_at = time.monotonic()
                    progress.update(bar, completed=found["progress"], description=f"{found['kind']}, {found['state']}")
                    if found["state"] in ENDED:
                        return found
                time.sleep(_LOOK_SECONDS)

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            status, found = call(method, f"{self._url}/experiments{path}", body, timeout_seconds=30)
        except NodeUnreachable as error:
            raise Away(f"{error}; `lab status` shows a lab, `lab up` starts one") from None
        if status >= 400:
            raise LabError(str(found.get("detail")))
        return found


def run(experiments: Experiments, what: str, changes: tuple[str, ...], *, as_json: bool) -> int:
    """Submit an experiment, wait for its end, and show it; the exit status. Ctrl-C cancels it."""
    out = Console(quiet=True) if as_json else console()
    name = experiments.submit(read(what, changes))["id"]
    out.print(f"experiment {name}")
    try:
        found = experiments.wait(name, out)
    except KeyboardInterrupt:
        out.print("Cancelling the experiment; its settings are put back")
        found = experiments.cancel(name)
    show(found, out)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found["state"] == "finished":
        out.print(f"\n`lab experiment report {name} --out report.html` makes a page of it.")
    return 0 if found["state"] == "finished" else 1


def show(found: dict[str, Any], out: Console) -> None:
    """One experiment: its state, and its result as far as there is one."""
    reason = f": {found['reason']}" if found["reason"] else ""
    out.print(f"{found['kind']}, {found['state']}{reason}", markup=False)
    if found["result"]:
        for part in tables.tables(found["kind"], found["spec"], found["result"]):
            out.print(part)


def table(found: list[dict[str, Any]]) -> Table:
    """The experiments, one a line."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "kind", "state", "progress", "submitted", "reason"):
        shown.add_column(column, justify="right" if column == "progress" else "left")
    for one in found:
        submitted = one["submitted_at"][:19].replace("T", " ")
        cells = (one["id"], one["kind"], one["state"], f"{one['progress']:.0%}", submitted, one["reason"] or "")
        shown.add_row(*map(Text, cells))
    return shown


def read(what: str, changes: tuple[str, ...]) -> dict[str, Any]:
    """The experiment that a file or the name of a kind describes, with changes ``path=value``. Raises ``LabError``."""
    spec: Any = {"kind": what} if what in KINDS else _yaml(_text(what), what)
    if not isinstance(spec, dict):
        raise LabError(f"{what} has to be a mapping, such as `kind: windows`")
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise LabError(f"--set takes path=value, such as rate=20, not {change[:_SHOWN_MAX]!r}")
        _put(spec, path.split("."), _yaml(text, change))
    return spec


def _text(path: str) -> str:
    try:
        return files.text(Path(path), _FILE_BYTES_MAX)
    except LabError as error:
        raise LabError(f"{error}; an experiment is {', '.join(KINDS)} or a file") from None


def _yaml(text: str, where: str) -> Any:
    try:
        return plain_yaml.load(text)
    except ValueError as error:
        raise LabError(f"{where[:_SHOWN_MAX]} is not YAML: {error}") from None


def _put(spec: dict[str, Any], path: list[str], value: Any) -> None:
    *way, last = path
    place = spec
    for name in way:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise LabError(f"--set {'.'.join(path)[:_SHOWN_MAX]}: {name[:_SHOWN_MAX]} is not a mapping")
    place[last] = value
