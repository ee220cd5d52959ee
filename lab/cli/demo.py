"""``lab demo``: one write, two late replicas, and what readers see in the meantime."""

import shutil
import subprocess
import time
from typing import Any
from urllib.parse import urlsplit

import click
from rich.markup import escape

from broker.position import Position
from broker.stats import quantile
from lab.cli import stream
from lab.cli.options import interrupt_on_sigterm, json_option
from lab.client import NodeUnreachable, get, post
from lab.errors import LabError
from lab.local.layout import NAMESPACE
from lab.local.supervisor import Lab
from lab.stage import BAR_WIDTH, SLOW_REPLICA, Stage, until
from lab.terminal import console, print_json

SLOW_MS = 3000
HELD_MS = 3000  # acknowledgements, for which a crashed replica has to come back within this time
HELD_WRITES = 5
_SHORT_MS = 100


@click.command()
@json_option(", without the text")
@click.option("--windows", type=click.IntRange(1, 1000), default=5, help="Windows to measure.")
def demo(*, as_json: bool, windows: int) -> None:
    """Walk through the lab with live numbers, on a temporary lab.

    \b
    Example: lab demo --json | jq .windows
    """
    interrupt_on_sigterm()
    out = console(quiet=as_json)
    try:
        with Lab.temporary(preferred_ports=[8000], status=out.status) as lab:
            facts = Story(lab, out).tell(windows)
    except NodeUnreachable as error:
        raise LabError(f"{error}; run it again, and if that does not help, use `lab up` and `lab logs`") from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    out.print("\nThe lab is stopped. [bold]make up[/] starts one that stays; the README shows what to try.")
    if as_json:
        print_json(facts)


class Story(Stage):
    """The scenes, in order. Each acts on the lab, shows the result, and adds its figures to ``facts``."""

    def tell(self, windows: int) -> dict[str, Any]:
        self._the_lab()
        self._one_write()
        self._windows(windows)
        self._slower()
        self._read_your_writes()
        self._redelivery()
        self._the_stream()
        return self.facts

    def _the_lab(self) -> None:
        found = get(f"{self._lab.primary_url}/admin/replication-delays")
        self._delays_ms, self._acks_ms = (
            {str(urlsplit(url).hostname): delay for url, delay in found[name].items()}
            for name in ("delays", "ack_delays")
        )
        self._title("The lab", "A primary accepts writes; each replica applies them from the log, deliberately late.")
        urls = {**self._urls, f"{NAMESPACE}-client": self._lab.client_url}
        delays = {name: f"{delay_ms:g} ms" for name, delay_ms in self._delays_ms.items()}
        self._show(("node", "url", "delay"), [(name, url, delays.get(name, "")) for name, url in urls.items()])
        self._out.print(f"\nWatch it in the console meanwhile: {self._lab.client_url}/")
        self.facts["delays_ms"] = self._delays_ms

    def _one_write(self) -> None:
        self._title("One write", "The primary has it immediately; a read from a replica right afterwards is stale.")
        written = self._write("greeting", "Hello, Distributed World!")
        at_once, pending = self._versions(), self._pending()
        self._out.print(f'wrote [bold]greeting[/] = "Hello, Distributed World!": position {written["position"]}\n')
        self._show_versions("right after the write", at_once, pending, {})
        waited_ms = self._watch_arrival(written["position"])
        after = self._versions()
        self._show_versions("after waiting", after, self._pending(), waited_ms)
        self.facts |= {"write": written, "versions_at_once": at_once, "pending_at_once": pending}
        self.facts |= {"applied_after_ms": waited_ms, "versions_after": after}

    def _windows(self, count: int) -> None:
        lesson = "From the write's acknowledgement until the last replica shows it: as long as the longest delay."
        self._title(f"{count} consistency windows", lesson)
        windows_ms: list[float] = []
        applied_ms: dict[str, list[float]] = {replica: [] for replica in self._delays_ms}
        longest_ms = max(self._delays_ms.values())
        with self._progress() as progress:
            for number in progress.track(range(1, count + 1), description="measuring"):
                found = self._write_and_wait(f"measure-{number}", number)
                windows_ms.append(found["consistency_time_ms"])
                for replica, values in applied_ms.items():
                    values.append(found["replicas"][replica]["applied_after_ms"])
                bar = "█" * round(BAR_WIDTH * min(1.0, windows_ms[-1] / longest_ms / 1.25))
                line = f"{number:4}  [cyan]{bar}[/]{' ' * (BAR_WIDTH - len(bar))}  {windows_ms[-1]:8.1f} ms"
                progress.console.print(line, highlight=False)
        self._out.print()
        rows = [_spread(f"{name}: commit to apply", applied_ms[name], delay) for name, delay in self._delays_ms.items()]
        rows.append(_spread("consistency window", windows_ms, longest_ms))
        self._show(("", "configured", "min", "median", "max", "beyond"), rows)
        self.facts["windows"] = {"consistency_time_ms": windows_ms, "applied_after_ms": applied_ms}

    def _slower(self) -> None:
        self._title("A slower replica", f"{SLOW_REPLICA} gets a delay of {SLOW_MS} ms, and the window grows with it.")
        before_ms = self._delays_ms[SLOW_REPLICA]
        self._set(delay_ms=SLOW_MS)
        with self._out.status(f"waiting for {SLOW_REPLICA}"):
            window_ms = self._write_and_wait("slow-replica", "testing-longer-delay")["consistency_time_ms"]
        self._set(delay_ms=before_ms)
        self._out.print(f"window with {SLOW_MS} ms: [bold]{window_ms:.1f} ms[/]; back to {before_ms:g} ms")
        self.facts["slow_replica"] = {"delay_ms": SLOW_MS, "consistency_time_ms": window_ms}

    def _read_your_writes(self) -> None:
        self._title("Reading your own write", "Two strategies, and the cost of each.")
        newest = self._write("ryw-test", "read-your-writes-demo")["version"]
        began = time.perf_counter()
        read = get(f"{self._lab.primary_url}/data/ryw-test")["version"]
        primary_ms = (time.perf_counter() - began) * 1000
        stale = [name for name, version in self._versions().items() if version < newest]
        with self._out.status("waiting for every replica"):
            waited_ms = self._write_and_wait("ryw-wait", "waited-for-consistency")["consistency_time_ms"]
        costs = f"{primary_ms:.1f} ms, and the primary carries every read"
        yes, no = "[green]yes[/]", "[red]no[/]"
        rows = [
            ("A: read from the primary", yes if read == newest else no, costs),
            ("   read from a replica", no if stale else yes, f"stale on {', '.join(stale) or 'none'}"),
            ("B: wait, then read anywhere", yes, f"{waited_ms:.1f} ms per write"),
        ]
        self._show(("strategy", "sees the write", "costs"), rows)
        primary = {"version": newest, "read_version": read, "stale_replicas": stale}
        wait = {"consistency_time_ms": waited_ms, "versions": self._versions()}
        self.facts["read_your_writes"] = {"primary": primary, "wait": wait}

    def _redelivery(self) -> None:
        lesson = f"Acknowledgements of {SLOW_REPLICA} held back by {HELD_MS} ms, and a crash before they are sent."
        self._title("Delivered, applied, acknowledged", lesson)
        before = {"delay_ms": self._delays_ms[SLOW_REPLICA], "ack_delay_ms": self._acks_ms[SLOW_REPLICA]}
        self._slow_version(f"min_acknowledged={self._slow_version()['position']}")
        self._set(delay_ms=_SHORT_MS, ack_delay_ms=HELD_MS)
        last = [self._write(f"held-{number}", number)["position"] for number in range(HELD_WRITES)][-1]
        self._slow_version(f"min_position={last}")
        moments = {"applied, held back": self._held()}
        post(f"{self._lab.client_url}/faults", {"replica": SLOW_REPLICA, "fault": "crash"})
        with self._out.status(f"waiting for {SLOW_REPLICA} to restart"):
            moments["crashed, delivered again"] = until(self._held, _is_delivered_again)
        with self._out.status("waiting for the acknowledgements"):
            self._slow_version(f"min_acknowledged={last}")
        moments["acknowledged"] = self._held()
        self._set(**before)
        self._out.print(f"[dim]Deliveries are counted by XPENDING {NAMESPACE}:log {SLOW_REPLICA} IDLE 0 - + 100[/]\n")
        self._show(
            ("", "version", "acknowledged", "pending", "deliveries of each"),
            [(moment, *_held_cells(held)) for moment, held in moments.items()],
        )
        again = get(f"{self._lab.replica_urls[SLOW_REPLICA]}/applied")["applied"]
        equal = get(f"{self._lab.client_url}/read-compare?digest=true")["analysis"]["digests_equal"]
        self._out.print(f"\napplied again: {len(again)}; digests of all nodes: {'equal' if equal else 'different'}")
        self.facts["redelivery"] = {"moments": moments, "applied_again": len(again), "digests_equal": equal}

    def _the_stream(self) -> None:
        self._title("The log itself", "Positions are stream IDs: epoch, dash, version. Entries in flight are pending.")
        self._write("in-flight", True)
        found = stream.observe(self._lab.redis_url, NAMESPACE, 5)
        if path := shutil.which("redis-cli"):
            for command in (f"XREVRANGE {found['stream']} + - COUNT 2", f"XPENDING {found['stream']} {SLOW_REPLICA}"):
                options = ["--no-auth-warning", "-u", self._lab.redis_url, *command.split()]
                self._out.print(f"[dim]$ redis-cli {escape(' '.join(options))}[/]")
                done = subprocess.run([path, *options], check=False, capture_output=True, text=True, timeout=10)
                self._out.print(escape(done.stdout or done.stderr))
        self._out.print(stream.picture(found))
        self.facts["stream"] = found


def _spread(name: str, values: list[float], configured_ms: float) -> tuple[str, ...]:
    middle = quantile(values, 0.5)
    figures = (configured_ms, min(values), middle, max(values), middle - configured_ms)
    return (name, *(f"{figure:.1f} ms" for figure in figures))


def _is_delivered_again(held: dict[str, Any]) -> bool:
    """Whether the restarted replica has read its pending entries; on a very slow machine none are left."""
    return held["acknowledged_position"] is not None and 1 not in held["deliveries"].values()


def _held_cells(held: dict[str, Any]) -> tuple[str, ...]:
    known = (held[name] and str(Position.parse(held[name]).version) for name in ("position", "acknowledged_position"))
    counts = held["deliveries"].values()
    return (*(version or "unknown" for version in known), str(len(counts)), " ".join(map(str, counts)))
