"""Failovers of the log server under writes, judged. ``python -m tests.support.failovers --help`` makes many."""

import argparse
import json
import math
import re
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Self

import urllib3

from broker.address import parse
from broker.connection import connect
from broker.entry import Entry
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Events
from lab.local.log_server import binary_path
from lab.local.supervisor import Lab
from tests.support.cluster import ClusterServers
from tests.support.http import ask
from tests.support.load import Writers
from tests.support.logserver import LogServer
from tests.support.sentinel import SentinelServers
from tests.support.until import until

BACK_SECONDS = 40.0
_PER_SECOND = 300
_RANGE = re.compile(r"(\d+)-(\d+)(?: to \d+-(\d+))?")
_LONG_LOG = {"LAB_LOG_KEEP": "900000", "LAB_LOG_MAX": "1000000", "LAB_DELAY_MS": "20"}


@dataclass
class Judgement:
    """What went wrong in some failovers; all must be empty but ``lost``, which must be named."""

    doubled_positions: list[str] = field(default_factory=list)
    doubled_writes: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    lost: set[Position] = field(default_factory=set)
    named: set[Position] = field(default_factory=set)
    diverged: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        wrong = (self.doubled_positions, self.doubled_writes, self.reordered, self.diverged)
        return not any(wrong) and self.lost == self.named


class Progress:
    """The moments at which a replica was seen at a later position, and the longest pause between two of them."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/version"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.moments: list[float] = [time.monotonic()]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = ""
        while not self._stop.wait(0.02):
            try:
                _, answer = ask("GET", self._url)
            except urllib3.exceptions.HTTPError:
                continue
            if answer.get("position", last) != last:
                last = answer["position"]
                self.moments.append(time.monotonic())


class Judge:
    """The log at a URL, and the URLs of the nodes that must agree with it."""

    def __init__(self, url: str, nodes: list[str]) -> None:
        self._url, self._namespace = url, parse(url).namespace("lab14")
        self._nodes = nodes

    def judge(self, *loads: Writers) -> Judgement:
        """Compare what was acknowledged with the log, and with what the lab says that it lost."""
        found = Judgement()
        entries = {entry.position: entry for entry in self._entries()}
        at: dict[str, list[str]] = defaultdict(list)
        acknowledged = [(number, write) for number, load in enumerate(loads) for write in load.acknowledged]
        for _, write in acknowledged:
            at[write["position"]].append(write["write_id"])
        found.doubled_positions = [position for position, ids in at.items() if len(set(ids)) > 1]
        times = Counter(entry.write_id for entry in entries.values() if entry.op != "epoch")
        found.doubled_writes = [write_id for write_id, count in times.items() if count > 1]
        last: dict[tuple[int, str], Position] = {}
        for number, write in acknowledged:
            position, writer = Position.parse(write["position"]), (number, write["value"].partition("-")[0])
            if position <= last.get(writer, START):
                found.reordered.append(write["position"])
            last[writer] = position
            entry = entries.get(position)
            if entry is None or entry.write_id != write["write_id"]:
                found.lost.add(position)
        if found.lost:
            until(lambda: self.named() >= found.lost, BACK_SECONDS)
        found.named = self.named() & set(map(Position.parse, at))
        found.diverged = self._diverged()
        return found

    def _entries(self) -> Iterator[Entry]:
        last = START
        log = ReplicationLog(connect(self._url), self._namespace)
        while page := log.history.after(last, 1000):
            yield from page
            last = page[-1].position

    def named(self) -> set[Position]:
        """The positions that the lab has named as lost, since its start."""
        named: set[Position] = set()
        for event in Events(connect(self._url), self._namespace).after("0-0", 1, 1000):
            for epoch, first, final in _RANGE.findall(event.fields.get("positions", "")):
                named |= {Position(int(epoch), n) for n in range(int(first), int(final or first) + 1)}
        return named

    def _diverged(self) -> list[str]:
        def digests() -> set[str]:
            return {json.dumps({**ask("GET", f"{url}/digest")[1], "source": ""}) for url in self._nodes}

        try:
            until(lambda: len(digests()) == 1, BACK_SECONDS)
        except AssertionError:
            return sorted(digests())
        return []


class Failovers:
    """A lab, its writers, and what happens to its log servers: ``kinds`` by name."""

    def __init__(self, lab: Lab, servers: SentinelServers | ClusterServers) -> None:
        self.lab, self.servers = lab, servers
        judge = Judge(servers.url(), [lab.primary_url, *lab.replica_urls.values()])
        self.judge, self.named = judge.judge, judge.named
        kinds = _on_sentinels(servers) if isinstance(servers, SentinelServers) else _on_cluster(servers)
        self.kinds: dict[str, Callable[[], object]] = kinds

    def round(self, kind: str, load: Writers) -> tuple[float, float]:
        """Let one failover happen; return the longest pauses, in seconds, between writes and of readers."""
        self.servers.wait_until_settled()
        with _all(*(Progress(url) for url in self.lab.replica_urls.values())) as replicas:
            began = len(load.times)
            until(lambda: len(load.times) > began + 50, BACK_SECONDS)
            self.kinds[kind]()
            self.servers.wait_until_settled()
            seen = len(load.times)
            until(lambda: len(load.times) > seen + 50, BACK_SECONDS)
            marks = [len(replica.moments) for replica in replicas]
            until(lambda: all(len(r.moments) > mark + 1 for r, mark in zip(replicas, marks, strict=True)), BACK_SECONDS)
        return _pause(load.times[began:]), max(_pause(replica.moments) for replica in replicas)


def _on_sentinels(servers: SentinelServers) -> dict[str, Callable[[], object]]:
    def kill() -> None:
        before = servers.master()
        before.kill()
        servers.wait_for_master(before)
        servers.restart(before)

    def freeze() -> None:
        before = servers.master()
        before.stop()
        try:
            servers.wait_for_master(before)
        finally:
            before.cont()

    return {"kill": kill, "freeze": freeze, "command": servers.failover, "back": servers.failover_and_back}


def _on_cluster(servers: ClusterServers) -> dict[str, Callable[[], object]]:
    def kill() -> None:
        before = servers.owner()
        before.kill()
        servers.wait_for_owner(before)
        before.start()

    def back() -> None:
        first = servers.owner()
        while servers.failover() is not first:
            servers.wait_until_settled()

    def migrate() -> None:
        servers.migrate_slot(servers.other_master())

    def migrate_at_once() -> None:
        servers.migrate_slot_at_once(servers.other_master())

    return {
        "kill": kill,
        "command": servers.failover,
        "back": back,
        "migrate": migrate,
        "migrate-at-once": migrate_at_once,
    }


@contextmanager
def on_cluster(which: str, directory: Path, *, copies: int = 0) -> Iterator[Failovers]:
    """A lab whose log is on a cluster of three masters, each with one replica; its queue is on a server of its own."""
    servers_at = directory / "servers"
    servers_at.mkdir()
    queue_at = directory / "queue"
    queue_at.mkdir()
    queue = LogServer(binary_path(which), queue_at)
    queue.start()
    try:
        with ClusterServers.running(which, servers_at) as servers:
            environment = {"LAB_LOG_COPIES": str(copies), "LAB_QUEUE_URL": queue.url}
            with _lab(servers.url(), environment) as lab:
                yield Failovers(lab, servers)
    finally:
        queue.kill()


@contextmanager
def _lab(url: str, environment: dict[str, str]) -> Iterator[Lab]:
    with Lab.temporary(redis_url=url, environment={**_LONG_LOG, **environment}) as lab:
        for replica in lab.replica_urls:
            ask("POST", f"{lab.primary_url}/admin/replication-delay", {"replica": replica, "delay_ms": 20})
        yield lab


@contextmanager
def on_sentinels(
    which: str, directory: Path, *, copies: int = 0, replicas: int = 1, fast: bool = True
) -> Iterator[Failovers]:
    """A lab whose log is on a master with ``replicas`` replicas, and three Sentinels."""
    servers_at = directory / "servers"
    servers_at.mkdir()
    with (
        SentinelServers.running(which, servers_at, replicas, fast=fast) as servers,
        _lab(servers.url(), {"LAB_LOG_COPIES": str(copies)}) as lab,
    ):
        yield Failovers(lab, servers)


@contextmanager
def _all(*managers: Progress) -> Iterator[tuple[Progress, ...]]:
    try:
        yield tuple(one.__enter__() for one in managers)
    finally:
        for one in managers:
            one.__exit__()


def _pause(moments: list[float]) -> float:
    ordered = sorted(moments)
    return max((after - before for before, after in pairwise(ordered)), default=math.nan)


def writers(lab: Lab) -> Writers:
    return Writers(lab.primary_url, count=8, rate=_PER_SECOND, keys=100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=["valkey", "redis-server"], default="valkey")
    parser.add_argument("--rounds", type=int, default=10, help="of each kind")
    parser.add_argument("--copies", type=int, default=0)
    parser.add_argument("--replicas", type=int, default=1, help="of the log server")
    parser.add_argument("--cluster", action="store_true", help="instead of Sentinels")
    parser.add_argument("--kinds", default="kill,command,back")
    parser.add_argument("--slow", action="store_true", help="Sentinels with their usual periods")
    chosen = parser.parse_args()
    right, where = True, f"{chosen.server}{' cluster' if chosen.cluster else ''}"
    for kind in chosen.kinds.split(","):
        with tempfile.TemporaryDirectory() as directory, _group(chosen, Path(directory)) as failovers:
            with writers(failovers.lab) as load:
                pauses = [failovers.round(kind, load) for _ in range(chosen.rounds)]
            found = failovers.judge(load)
            right = right and found.is_right
            shown = (f"{_middle(one):.2f} / {max(one):.2f}" for one in zip(*pauses, strict=True))
            print(
                f"{where} copies={chosen.copies} of {chosen.replicas} {kind} x {chosen.rounds}: "
                f"{len(load.acknowledged)} acknowledged, {len(found.lost)} lost, {len(found.named)} named, "
                f"positions doubled {len(found.doubled_positions)}, writes doubled {len(found.doubled_writes)}, "
                f"reordered {len(found.reordered)}, diverged {len(found.diverged)}; "
                f"s p50 / max: writes {next(shown)}, readers {next(shown)}",
                flush=True,
            )
            if found.lost != found.named:
                print("  lost, not named:", sorted(found.lost - found.named)[:10])
                print("  named, not lost:", sorted(found.named - found.lost)[:10])
    return 0 if right else 1


def _group(chosen: argparse.Namespace, directory: Path) -> AbstractContextManager[Failovers]:
    if chosen.cluster:
        return on_cluster(chosen.server, directory, copies=chosen.copies)
    fast = not chosen.slow
    return on_sentinels(chosen.server, directory, copies=chosen.copies, replicas=chosen.replicas, fast=fast)


def _middle(values: tuple[float, ...]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    sys.exit(main())
