"""``lab demo``: the story of one write, two late replicas, and what a reader sees meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from broker.stats import quantile
from lab import stream
from lab.client import NodeUnreachable, get, post
from lab.errors import LabError
from lab.local import layout
from lab.local.layout import NAMESPACE, Options
from lab.local.supervisor import Lab
from lab.terminal import console

SLOW_MS = 3000
_SLOW_REPLICA = f"{NAMESPACE}-replica2"
_BAR_WIDTH = 40


def run(*, as_json: bool, windows: int) -> None:
    """Start a lab of its own, tell the story on it, and stop it. Raises ``LabError``."""
    out = Console(quiet=True) if as_json else console()
    with tempfile.TemporaryDirectory(prefix="lab-demo-") as directory:
        base_port = layout.free_base_port(SystemRandom(), preferred=[8000])
        lab = Lab(Options(data_dir=Path(directory), base_port=base_port))
        try:
            with out.status("Starting a log server, a primary, two replicas and a client"):
                lab.start()
            facts = Story(lab, out).tell(windows)
        except NodeUnreachable as error:
            raise LabError(f"{error}; run it again, and if that does not help, see `lab up` and `lab logs`") from None
        except KeyboardInterrupt:
            out.print("\nStopping the lab")
            raise click.exceptions.Exit(130) from None
        finally:
            with out.status("Stopping the lab"):
                lab.stop()
    out.print("\nThe lab is stopped. [bold]make up[/] starts one that stays; the README says what to try on it.")
    if as_json:
        click.echo(json.dumps(facts, indent=2))


class Story:
    """The scenes, in order. Each does what it says on the lab, shows it, and adds its figures to ``facts``."""

    def __init__(self, lab: Lab, out: Console) -> None:
        self._lab = lab
        self._out = out
        self._urls = {f"{NAMESPACE}-primary": lab.primary_url, **lab.replica_urls}
        self._delays_ms: dict[str, float] = {}
        self.facts: dict[str, Any] = {}

    def tell(self, windows: int) -> dict[str, Any]:
        """Play every scene, and return the figures."""
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
        self._delays_ms = {url.split("//")[1].split(":")[0]: delay for url, delay in found.items()}
        self._title("The lab", "A primary takes writes; each replica applies them from the log, late on purpose.")
        table = _table("node", "url", "delay")
        for name, url in [*self._urls.items(), (f"{NAMESPACE}-client", self._lab.client_url)]:
            delay_ms = self._delays_ms.get(name)
            table.add_row(name, url, "" if delay_ms is None else f"{delay_ms:g} ms")
        self._out.print(table)
        self._out.print(f"\nWatch it as a picture meanwhile: {self._lab.client_url}/")
        self.facts["delays_ms"] = self._delays_ms

    def _one_write(self) -> None:
        self._title("One write", "The primary has it at once. Who reads from a replica right after it reads the past.")
        written = post(f"{self._lab.primary_url}/data", {"key": "greeting", "value": "Hello, Distributed World!"})
        at_once = self._versions()
        pending = self._pending()
        self._out.print(f'wrote [bold]greeting[/] = "Hello, Distributed World!": position {written["position"]}\n')
        self._show_versions("right after the write", at_once, written["version"], pending)
        waited_ms = self._watch_arrival(written["position"])
        after = self._versions()
        self._show_versions("after waiting", after, written["version"], self._pending(), waited_ms)
        self.facts["write"] = written
        self.facts["versions_at_once"] = at_once
        self.facts["pending_at_once"] = pending
        self.facts["applied_after_ms"] = waited_ms
        self.facts["versions_after"] = after

    def _windows(self, count: int) -> None:
        self._title(
            f"{count} consistency windows",
            "From the write's acknowledgement until the last replica shows it: as long as the longest delay.",
        )
        longest_ms = max(self._delays_ms.values())
        measured = []
        with self._progress() as progress:
            task = progress.add_task("measuring", total=count)
            for number in range(1, count + 1):
                found = self._write_and_wait(f"measure-{number}", number)
                measured.append(found)
                progress.console.print(_bar(number, found["consistency_time_ms"], longest_ms), highlight=False)
                progress.advance(task)
        self._show_spread(measured)
        self.facts["windows"] = {
            "consistency_time_ms": [found["consistency_time_ms"] for found in measured],
            "applied_after_ms": {
                replica: [found["replicas"][replica]["applied_after_ms"] for found in measured]
                for replica in self._delays_ms
            },
        }

    def _slower(self) -> None:
        self._title("A slower replica", f"{_SLOW_REPLICA} gets {SLOW_MS} ms, and the window with it.")
        before_ms = self._delays_ms[_SLOW_REPLICA]
        self._set_delay(SLOW_MS)
        with self._out.status(f"waiting for {_SLOW_REPLICA}"):
            found = self._write_and_wait("slow-replica", "testing-longer-delay")
        self._set_delay(before_ms)
        self._out.print(
            f"window with {SLOW_MS} ms: [bold]{found['consistency_time_ms']:.1f} ms[/]; back to {before_ms:g} ms"
        )
        self.facts["slow_replica"] = {"delay_ms": SLOW_MS, "consistency_time_ms": found["consistency_time_ms"]}

    def _read_your_writes(self) -> None:
        self._title("Reading your own write", "Two ways, and what each costs.")
        written = post(f"{self._lab.primary_url}/data", {"key": "ryw-test", "value": "read-your-writes-demo"})
        began = time.perf_counter()
        read = get(f"{self._lab.primary_url}/data/ryw-test")
        primary_ms = (time.perf_counter() - began) * 1000
        versions = self._versions()
        stale = [name for name, version in versions.items() if version < written["version"]]
        with self._out.status("waiting for every replica"):
            waited = self._write_and_wait("ryw-wait", "waited-for-consistency")
        table = _table("strategy", "sees the write", "costs")
        seen = read["version"] == written["version"]
        table.add_row(
            "A: read from the primary", _yes(seen), f"{primary_ms:.1f} ms, and the primary carries every read"
        )
        table.add_row("   read from a replica", _yes(not stale), f"stale on {', '.join(stale) or 'none'}")
        waited_ms = waited["consistency_time_ms"]
        table.add_row(
            "B: wait, then read anywhere", _yes(waited["consistency_achieved"]), f"{waited_ms:.1f} ms per write"
        )
        self._out.print(table)
        self.facts["read_your_writes"] = {
            "primary": {"version": written["version"], "read_version": read["version"], "stale_replicas": stale},
            "wait": {"consistency_time_ms": waited_ms, "versions": self._versions()},
        }

    def _the_stream(self) -> None:
        self._title("The log itself", "Positions are stream IDs: epoch, dash, version. What is in flight is pending.")
        post(f"{self._lab.primary_url}/data", {"key": "in-flight", "value": True})
        found = stream.observe(self._lab.redis_url, NAMESPACE, 5)
        if stream.has_redis_cli():
            self._redis_cli("XREVRANGE", found["stream"], "+", "-", "COUNT", "2")
            self._redis_cli("XPENDING", found["stream"], _SLOW_REPLICA)
        self._out.print(stream.picture(found))
        self.facts["stream"] = found

    # -- parts --------------------------------------------------------------------------------------------------------

    def _versions(self) -> dict[str, int]:
        """Every node's version, asked for at once."""
        with ThreadPoolExecutor(len(self._urls)) as threads:
            answers = threads.map(lambda url: get(f"{url}/version")["version"], self._urls.values())
            return dict(zip(self._urls, answers, strict=True))

    def _pending(self) -> dict[str, int]:
        found = get(f"{self._lab.primary_url}/replicas")["replicas"]
        return {replica["replica_id"]: replica["pending"] for replica in found}

    def _write_and_wait(self, key: str, value: Any) -> dict[str, Any]:
        url = f"{self._lab.client_url}/write-and-wait?timeout_ms=10000"
        found = post(url, {"key": key, "value": value}, timeout_seconds=20.0)
        if not found["consistency_achieved"]:
            raise LabError(f"no convergence within 10 s: {', '.join(found['missing'])} did not get the write")
        return found

    def _set_delay(self, delay_ms: float) -> None:
        post(f"{self._lab.primary_url}/admin/replication-delay", {"replica": _SLOW_REPLICA, "delay_ms": delay_ms})

    def _watch_arrival(self, position: str) -> dict[str, float]:
        """Show each replica's way to the position; commit to apply in milliseconds, by replica."""

        def wait(replica: str) -> float:
            url = f"{self._lab.replica_urls[replica]}/version?min_position={position}&timeout_ms=10000"
            return float(get(url, timeout_seconds=20.0)["applied_after_ms"])

        with self._progress() as progress, ThreadPoolExecutor(len(self._delays_ms)) as threads:
            waits = {replica: threads.submit(wait, replica) for replica in self._delays_ms}
            tasks = {replica: progress.add_task(replica, total=delay) for replica, delay in self._delays_ms.items()}
            began = time.monotonic()
            while not all(future.done() for future in waits.values()):
                for replica, task in tasks.items():
                    gone_ms = (time.monotonic() - began) * 1000
                    done = self._delays_ms[replica] if waits[replica].done() else min(gone_ms, self._delays_ms[replica])
                    progress.update(task, completed=done)
                time.sleep(0.02)
            return {replica: future.result() for replica, future in waits.items()}

    def _show_versions(
        self,
        when: str,
        versions: dict[str, int],
        newest: int,
        pending: dict[str, int],
        applied_after_ms: dict[str, float] | None = None,
    ) -> None:
        table = _table(when, "version", "", "pending", "applied after")
        for name, version in versions.items():
            mark = "[green]has it[/]" if version >= newest else "[red]stale[/]"
            after_ms = (applied_after_ms or {}).get(name)
            after = "" if after_ms is None else f"{after_ms:.1f} ms"
            table.add_row(name, str(version), mark, str(pending.get(name, "")), after)
        self._out.print(table)

    def _show_spread(self, measured: list[dict[str, Any]]) -> None:
        self._out.print()
        table = _table("", "configured", "min", "median", "max", "beyond")
        rows = {
            f"{replica}: commit to apply": (
                [found["replicas"][replica]["applied_after_ms"] for found in measured],
                delay_ms,
            )
            for replica, delay_ms in self._delays_ms.items()
        }
        windows_ms = [found["consistency_time_ms"] for found in measured]
        rows["consistency window"] = (windows_ms, max(self._delays_ms.values()))
        for name, (values, delay_ms) in rows.items():
            middle = quantile(values, 0.5)
            figures = (delay_ms, min(values), middle, max(values), middle - delay_ms)
            table.add_row(name, *(f"{figure:.1f} ms" for figure in figures))
        self._out.print(table)

    def _redis_cli(self, *command: str) -> None:
        line = ["redis-cli", "--no-auth-warning", "-u", self._lab.redis_url, *command]
        self._out.print(f"[dim]$ {escape(' '.join(line))}[/]")
        path = shutil.which("redis-cli") or line[0]
        done = subprocess.run([path, *line[1:]], check=False, capture_output=True, text=True, timeout=10)
        self._out.print(escape(done.stdout or done.stderr))

    @contextmanager
    def _progress(self) -> Iterator[Progress]:
        columns = (TextColumn("{task.description}"), BarColumn(_BAR_WIDTH), TimeElapsedColumn())
        with Progress(*columns, console=self._out, transient=True) as progress:
            yield progress

    def _title(self, title: str, lesson: str) -> None:
        self._out.print()
        self._out.rule(f"[bold]{title}[/]", align="left")
        self._out.print(f"[italic]{lesson}[/]\n")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in {"version", "pending", "applied after", "configured", "min", "median", "max", "beyond"}
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    return table


def _bar(number: int, window_ms: float, longest_ms: float) -> str:
    filled = round(_BAR_WIDTH * min(1.0, window_ms / longest_ms / 1.25))
    return f"{number:4}  [cyan]{'█' * filled}[/]{' ' * (_BAR_WIDTH - filled)}  {window_ms:8.1f} ms"


def _yes(seen: bool) -> str:
    return "[green]yes[/]" if seen else "[red]no[/]"
