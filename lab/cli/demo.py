"""``lab demo``: one write, two late replicas, and what readers see in the meantime."""

import shutil
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from broker.stats import quantile
from lab.cli import stream
from lab.cli.options import interrupt_on_sigterm, json_option
from lab.client import NodeUnreachable, get, post
from lab.errors import LabError
from lab.local.layout import NAMESPACE
from lab.local.supervisor import Lab
from lab.terminal import console, print_json, table

SLOW_MS = 3000
_SLOW_REPLICA = f"{NAMESPACE}-replica2"
_BAR_WIDTH = 40
_NUMBERS = frozenset({"version", "pending", "applied after", "configured", "min", "median", "max", "beyond"})


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


class Story:
    """The scenes, in order. Each acts on the lab, shows the result, and adds its figures to ``facts``."""

    def __init__(self, lab: Lab, out: Console) -> None:
        self._lab = lab
        self._out = out
        self._urls = {f"{NAMESPACE}-primary": lab.primary_url, **lab.replica_urls}
        self._delays_ms: dict[str, float] = {}
        self.facts: dict[str, Any] = {}

    def tell(self, windows: int) -> dict[str, Any]:
        self._the_lab()
        self._one_write()
        self._windows(windows)
        self._slower()
        self._read_your_writes()
        self._the_stream()
        return self.facts

    # -- scenes -------------------------------------------------------------------------------------------------------
    def _the_lab(self) -> None:
        found = get(f"{self._lab.primary_url}/admin/replication-delays")["delays"]
        self._delays_ms = {str(urlsplit(url).hostname): delay for url, delay in found.items()}
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
                bar = "█" * round(_BAR_WIDTH * min(1.0, windows_ms[-1] / longest_ms / 1.25))
                line = f"{number:4}  [cyan]{bar}[/]{' ' * (_BAR_WIDTH - len(bar))}  {windows_ms[-1]:8.1f} ms"
                progress.console.print(line, highlight=False)
        self._out.print()
        rows = [_spread(f"{name}: commit to apply", applied_ms[name], delay) for name, delay in self._delays_ms.items()]
        rows.append(_spread("consistency window", windows_ms, longest_ms))
        self._show(("", "configured", "min", "median", "max", "beyond"), rows)
        self.facts["windows"] = {"consistency_time_ms": windows_ms, "applied_after_ms": applied_ms}

    def _slower(self) -> None:
        self._title("A slower replica", f"{_SLOW_REPLICA} gets a delay of {SLOW_MS} ms, and the window grows with it.")
        before_ms = self._delays_ms[_SLOW_REPLICA]
        self._set_delay(SLOW_MS)
        with self._out.status(f"waiting for {_SLOW_REPLICA}"):
            window_ms = self._write_and_wait("slow-replica", "testing-longer-delay")["consistency_time_ms"]
        self._set_delay(before_ms)
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

    def _the_stream(self) -> None:
        self._title("The log itself", "Positions are stream IDs: epoch, dash, version. Entries in flight are pending.")
        self._write("in-flight", True)
        found = stream.observe(self._lab.redis_url, NAMESPACE, 5)
        if path := shutil.which("redis-cli"):
            for command in (f"XREVRANGE {found['stream']} + - COUNT 2", f"XPENDING {found['stream']} {_SLOW_REPLICA}"):
                options = ["--no-auth-warning", "-u", self._lab.redis_url, *command.split()]
                self._out.print(f"[dim]$ redis-cli {escape(' '.join(options))}[/]")
                done = subprocess.run([path, *options], check=False, capture_output=True, text=True, timeout=10)
                self._out.print(escape(done.stdout or done.stderr))
        self._out.print(stream.picture(found))
        self.facts["stream"] = found

    # -- parts --------------------------------------------------------------------------------------------------------
    def _write(self, key: str, value: Any) -> dict[str, Any]:
        return post(f"{self._lab.primary_url}/data", {"key": key, "value": value})

    def _write_and_wait(self, key: str, value: Any) -> dict[str, Any]:
        url = f"{self._lab.client_url}/write-and-wait?timeout_ms=10000"
        found = post(url, {"key": key, "value": value}, timeout_seconds=20.0)
        if not found["consistency_achieved"]:
            raise LabError(f"no convergence within 10 s: {', '.join(found['missing'])} did not get the write")
        return found

    def _versions(self) -> dict[str, int]:
        with ThreadPoolExecutor(len(self._urls)) as threads:
            answers = threads.map(lambda url: get(f"{url}/version")["version"], self._urls.values())
            return dict(zip(self._urls, answers, strict=True))

    def _pending(self) -> dict[str, int]:
        return {one["replica_id"]: one["pending"] for one in get(f"{self._lab.primary_url}/replicas")["replicas"]}

    def _set_delay(self, delay_ms: float) -> None:
        post(f"{self._lab.primary_url}/admin/replication-delay", {"replica": _SLOW_REPLICA, "delay_ms": delay_ms})

    def _watch_arrival(self, position: str) -> dict[str, float]:
        """Show each replica's progress to the position; commit to apply in milliseconds, by replica."""

        def wait(replica: str) -> float:
            url = f"{self._lab.replica_urls[replica]}/version?min_position={position}&timeout_ms=10000"
            return float(get(url, timeout_seconds=20.0)["applied_after_ms"])

        with self._progress() as progress, ThreadPoolExecutor(len(self._delays_ms)) as threads:
            bars = [
                (threads.submit(wait, replica), progress.add_task(replica, total=delay_ms), delay_ms)
                for replica, delay_ms in self._delays_ms.items()
            ]
            began = time.monotonic()
            while not all(applied.done() for applied, _, _ in bars):
                for applied, bar, delay_ms in bars:
                    passed_ms = (time.monotonic() - began) * 1000
                    progress.update(bar, completed=delay_ms if applied.done() else min(passed_ms, delay_ms))
                time.sleep(0.02)
            return {replica: applied.result() for replica, (applied, _, _) in zip(self._delays_ms, bars, strict=True)}

    def _show_versions(
        self, when: str, versions: dict[str, int], pending: dict[str, int], applied_ms: dict[str, float]
    ) -> None:
        newest = max(versions.values())
        rows = []
        for name, version in versions.items():
            mark = "[green]has it[/]" if version == newest else "[red]stale[/]"
            after = f"{applied_ms[name]:.1f} ms" if name in applied_ms else ""
            rows.append((name, str(version), mark, str(pending.get(name, "")), after))
        self._show((when, "version", "", "pending", "applied after"), rows)

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(_BAR_WIDTH), TimeElapsedColumn())
        return Progress(*columns, console=self._out, transient=True)

    def _title(self, title: str, lesson: str) -> None:
        self._out.print()
        self._out.rule(f"[bold]{title}[/]", align="left")
        self._out.print(f"[italic]{lesson}[/]\n")

    def _show(self, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        shown = table(*columns, right=_NUMBERS, no_wrap=True)
        for row in rows:
            shown.add_row(*row)
        self._out.print(shown)


def _spread(name: str, values: list[float], configured_ms: float) -> tuple[str, ...]:
    middle = quantile(values, 0.5)
    figures = (configured_ms, min(values), middle, max(values), middle - configured_ms)
    return (name, *(f"{figure:.1f} ms" for figure in figures))
