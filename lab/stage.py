"""The lab as a scene of ``lab demo`` acts on it and shows it."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from broker.connection import connect
from broker.history import History
from lab.client import NodeUnreachable, get, post
from lab.errors import LabError
from lab.local.layout import NAMESPACE
from lab.local.supervisor import Lab
from lab.terminal import table

SLOW_REPLICA = f"{NAMESPACE}-replica2"
BAR_WIDTH = 40
_RESTART_SECONDS = 20.0
_PENDING_MAX = 100
_NUMBERS = frozenset(
    {"version", "acknowledged", "pending", "applied after", "configured", "min", "median", "max", "beyond"}
)


class Stage:
    """A running lab, an output, and ``facts``: the figures shown so far."""

    def __init__(self, lab: Lab, out: Console) -> None:
        self._lab = lab
        self._out = out
        self._urls = {f"{NAMESPACE}-primary": lab.primary_url, **lab.replica_urls}
        self._history = History(connect(lab.redis_url), NAMESPACE)
        self._delays_ms: dict[str, float] = {}
        self._acks_ms: dict[str, float] = {}
        self.facts: dict[str, Any] = {}

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

    def _set(self, **delays_ms: float) -> None:
        post(f"{self._lab.primary_url}/admin/replication-delay", {"replica": SLOW_REPLICA, **delays_ms})

    def _slow_version(self, wait: str = "") -> dict[str, Any]:
        url = f"{self._lab.replica_urls[SLOW_REPLICA]}/version?timeout_ms=10000&{wait}"
        return get(url, timeout_seconds=20.0)

    def _held(self) -> dict[str, Any]:
        """How far the slow replica is, and how often each of its pending entries was delivered."""
        found = self._slow_version()
        counts = self._history.deliveries(SLOW_REPLICA, _PENDING_MAX)
        deliveries = {str(position): count for position, count in counts.items()}
        return {name: found[name] for name in ("position", "acknowledged_position")} | {"deliveries": deliveries}

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
        columns = (TextColumn("{task.description}"), BarColumn(BAR_WIDTH), TimeElapsedColumn())
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


def until(look: Callable[[], dict[str, Any]], is_reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look until the condition holds, also through a restart. Raises ``LabError``."""
    deadline = time.monotonic() + _RESTART_SECONDS
    while time.monotonic() < deadline:
        with suppress(NodeUnreachable):
            if is_reached(found := look()):
                return found
        time.sleep(0.02)
    raise LabError(f"{SLOW_REPLICA} did not come back within {_RESTART_SECONDS:g} s")
