"""``lab watch``: the lab in a terminal, live, from the client's feed."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import urllib3
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from broker.position import START, Position
from lab.errors import LabError
from lab.terminal import console

_SPARKS = "▁▂▃▄▅▆▇█"
_HISTORY = 40
_EVENTS = 5
_LISTEN_SECONDS = 20.0
_PAUSE_SECONDS = 1.0


@dataclass
class Replica:
    """A replica as the feed has told of it. ``lags_ms``: the newest last."""

    position: Position = START
    state: dict[str, Any] = field(default_factory=dict)
    lags_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))


class View:
    """What the feed has told so far, and how it looks."""

    def __init__(self) -> None:
        self.head = START
        self.replicas: dict[str, Replica] = {}
        self.events: deque[str] = deque(maxlen=_EVENTS)
        self.trouble = ""

    def take(self, message: dict[str, Any]) -> None:
        """One message of the feed."""
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
        """The table, and what has happened lately."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("node", "position", "behind", "lag", "pending", "delay", "lag, the last 40 s", "state"):
            table.add_column(name, justify="right" if name in {"behind", "lag", "pending", "delay"} else "left")
        table.add_row("primary", str(self.head))
        for name, replica in sorted(self.replicas.items()):
            table.add_row(name, str(replica.position), *self._cells(replica))
        parts: list[Any] = [table, Text()]
        parts += [Text(line, style="dim", no_wrap=True) for line in self.events]
        parts.append(Text(self.trouble or "Ctrl-C ends this; the lab goes on.", style="red" if self.trouble else "dim"))
        return Group(*parts)

    def _cells(self, replica: Replica) -> list[str]:
        state = replica.state
        if not state:
            return []
        same_epoch = self.head.epoch == replica.position.epoch
        behind = self.head.version - replica.position.version if same_epoch else state["lag_versions"]
        said = [*state["faults"], *(["diverged"] if state["diverged"] else []), *filter(None, [state["resyncing"]])]
        shown = ", ".join(said) or ("[green]live[/]" if state["live"] else "[red]away[/]")
        return [
            str(max(behind, 0)),
            f"{state['lag_ms']:,.0f} ms",
            str(state["pending"]),
            f"{state['delay_ms']:g} ms",
            sparkline(replica.lags_ms),
            escape(shown) if said else shown,
        ]


def sparkline(values: Any) -> str:
    """Numbers as bars of one row; none of them is as high as it gets where all are 0."""
    highest = max(values, default=0)
    return "".join(_SPARKS[round(value / highest * (len(_SPARKS) - 1)) if highest else 0] for value in values)


def run(client_url: str, sleep: Callable[[float], object]) -> None:
    """Show it until Ctrl-C, or until a pipe is closed. Raises ``LabError`` where there is no lab to begin with."""
    view = View()
    messages = _messages(client_url)
    _first(view, messages, client_url)
    with suppress(KeyboardInterrupt), _display(view) as show:
        while True:
            with suppress(urllib3.exceptions.HTTPError, ValueError):
                for message in messages:
                    view.take(message)
                    show()
            view.trouble = "The client service does not answer; trying again"
            show()
            sleep(_PAUSE_SECONDS)
            messages = _messages(client_url)


@contextmanager
def _display(view: View) -> Iterator[Callable[[], None]]:
    """Show in place on a terminal, and otherwise one picture after another."""
    out = console()
    if out.is_terminal:
        with Live(view.picture(), console=out, auto_refresh=False, screen=False) as live:
            yield lambda: live.update(view.picture(), refresh=True)
    else:
        out.print(view.picture())
        yield lambda: out.print(view.picture())


def _first(view: View, messages: Iterator[dict[str, Any]], client_url: str) -> None:
    try:
        view.take(next(messages))
    except (urllib3.exceptions.HTTPError, ValueError, StopIteration):
        raise LabError(f"{client_url} does not answer; `lab status` shows a lab, `lab up` starts one") from None


def _messages(client_url: str) -> Iterator[dict[str, Any]]:
    """The feed's messages, until the connection ends."""
    timeout = urllib3.Timeout(connect=2.0, read=_LISTEN_SECONDS)
    answer = urllib3.PoolManager(retries=False).request(
        "GET", f"{client_url}/events", preload_content=False, timeout=timeout
    )
    try:
        for line in _lines(answer):
            if line.startswith("data: {") and line != "data: {}":
                yield json.loads(line.removeprefix("data: "))
    finally:
        answer.close()


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[str]:
    rest = b""
    for chunk in answer.stream(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)


def _clock(at_ms: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))
