"""``lab watch``: the lab in a terminal, live, from the client's feed; or a recording of the feed."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from broker.position import START, Position
from lab import client, page, recording
from lab.cli.options import client_url_option, data_dir_option
from lab.client import NodeUnreachable
from lab.local.state import url
from lab.terminal import console, table

_SPARKS = "▁▂▃▄▅▆▇█"
_HISTORY = 40  # lags of a replica, one a second
_EVENTS = 5
_PAUSE_SECONDS = 1.0


@click.command()
@data_dir_option
@client_url_option
@click.option(
    "--replay", type=click.Path(path_type=Path), help="Show a recording that the console saved, at its own speed."
)
@click.option("--page", "as_page", is_flag=True, help="Show the recording in the console, without a lab.")
def watch(data_dir: Path, client_url: str | None, replay: Path | None, as_page: bool) -> None:
    """Show the lab live: positions, lag and its recent history, pending entries, and events. Ctrl-C exits.

    \b
    Example: lab watch
    Example: lab watch --replay lab-1764115200000.jsonl
    Example: lab watch --replay lab-1764115200000.jsonl --page
    """
    if replay is None:
        if as_page:
            raise click.UsageError("--page shows a recording: name it with --replay.")
        run(client_url or url(data_dir, "client"), time.sleep)
        return
    text, messages = recording.load(replay)
    if as_page:
        serve(text)
    else:
        run_recording(messages, time.sleep, time.monotonic)


@dataclass
class Replica:
    """A replica's state from the feed. ``lags_ms``: in ascending time order."""

    position: Position = START
    state: dict[str, Any] = field(default_factory=dict)
    lags_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))


@dataclass
class View:
    head: Position = START
    replicas: dict[str, Replica] = field(default_factory=dict)
    events: deque[str] = field(default_factory=lambda: deque(maxlen=_EVENTS))
    trouble: str = ""
    note: str = "Ctrl-C exits; the lab keeps running."

    def take(self, message: dict[str, Any]) -> None:
        self.trouble = ""
        for write in message.get("writes", []):
            self.head = max(self.head, Position.parse(write["position"]))
        for state in message.get("state", []):
            replica = self.replicas.setdefault(state["replica_id"], Replica())
            replica.state = state
            replica.lags_ms.append(state["lag_ms"])
            replica.position = max(replica.position, Position.parse(state["applied_position"]))
            self.head = max(self.head, replica.position)
        for applied in message.get("applied", []):
            replica = self.replicas.setdefault(applied["replica"], Replica())
            replica.position = max(replica.position, Position.parse(applied["position"]))
        for event in message.get("events", []):
            rest = " ".join(f"{name}={value}" for name, value in event.items() if name not in {"at_ms", "kind"})
            self.events.append(f"{_clock(event['at_ms'])}  {event['kind']} {rest}")
        for away in message.get("unreachable", []):
            self.events.append(f"{_clock(message['now_ms'])}  {away['detail']}")

    def picture(self) -> Group:
        numbers = ("behind", "lag", "pending", "delay")
        shown = table("node", "position", *numbers, "lag, the last 40 s", "state", right=numbers)
        shown.add_row("primary", str(self.head))
        for name, replica in sorted(self.replicas.items()):
            shown.add_row(name, str(replica.position), *self._cells(replica))
        events = [Text(line, style="dim", no_wrap=True) for line in self.events]
        last = Text(self.trouble or self.note, style="red" if self.trouble else "dim")
        return Group(shown, Text(), *events, last)

    def _cells(self, replica: Replica) -> list[str]:
        state = replica.state
        if not state:
            return []
        same_epoch = self.head.epoch == replica.position.epoch
        behind = self.head.version - replica.position.version if same_epoch else state["lag_versions"]
        troubles = [*state["faults"], *(["diverged"] if state["diverged"] else []), *filter(None, [state["resyncing"]])]
        return [
            str(max(behind, 0)),
            f"{state['lag_ms']:,.0f} ms",
            str(state["pending"]),
            f"{state['delay_ms']:g} ms",
            sparkline(replica.lags_ms),
            escape(", ".join(troubles)) or ("[green]live[/]" if state["live"] else "[red]away[/]"),
        ]


def sparkline(values: Any) -> str:
    """Numbers as bars in one row, relative to the highest; all are lowest if all are 0."""
    highest = max(values, default=0)
    return "".join(_SPARKS[round(value / highest * (len(_SPARKS) - 1)) if highest else 0] for value in values)


def run(client_url: str, sleep: Callable[[float], object]) -> None:
    """Show the lab until Ctrl-C or a closed pipe. Raises ``NodeUnreachable`` if there is no lab at the start."""
    view = View()
    messages = client.messages(f"{client_url}/events")
    view.take(next(messages))
    with suppress(KeyboardInterrupt), _display(view) as show:
        while True:
            with suppress(NodeUnreachable):
                for message in messages:
                    view.take(message)
                    show()
            view.trouble = "The client service does not respond; trying again"
            show()
            sleep(_PAUSE_SECONDS)
            messages = client.messages(f"{client_url}/events")


def run_recording(messages: list[dict[str, Any]], sleep: Callable[[float], object], clock: Callable[[], float]) -> None:
    """Show a recording at its own speed until its end or Ctrl-C. ``clock``: in seconds."""
    view = View(note="A recording; Ctrl-C exits.")
    first, *others = messages
    started_at = clock()
    view.take(first)
    with suppress(KeyboardInterrupt), _display(view) as show:
        for message in others:
            due_at = started_at + (message["now_ms"] - first["now_ms"]) / 1000
            sleep(max(0.0, due_at - clock()))
            view.take(message)
            show()


def serve(text: str) -> None:
    """Show a recording in the console until Ctrl-C."""
    with suppress(KeyboardInterrupt), page.server(text.encode()) as server:
        click.echo(f"The recording is at http://{server.host}:{server.port}/?replay; Ctrl-C ends this.")
        server.serve_forever()


@contextmanager
def _display(view: View) -> Iterator[Callable[[], None]]:
    out = console()
    if out.is_terminal:
        with Live(view.picture(), console=out, auto_refresh=False, screen=False) as live:
            yield lambda: live.update(view.picture(), refresh=True)
    else:
        out.print(view.picture())
        yield lambda: out.print(view.picture())


def _clock(at_ms: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))
