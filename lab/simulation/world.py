"""A lab in the simulated world: one primary, its log on one server or on two with a Sentinel, and replicas."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

import redis

from broker import log
from broker.connection import register
from broker.position import Position
from lab.simulation import disk, replaced
from lab.simulation.disk import Disk
from lab.simulation.http_connections import HttpConnections
from lab.simulation.judges import Judge
from lab.simulation.log_connections import LogConnections
from lab.simulation.log_server import LogServer
from lab.simulation.model import Copy, Line
from lab.simulation.network import Network
from lab.simulation.node import Node
from lab.simulation.scheduler import Process, Scheduler
from lab.simulation.sentinel import Sentinel
from lab.simulation.trace import Trace
from nodes.runtime.config import Role

_LOG_PORT, _SENTINEL_PORT, _PRIMARY_PORT = 6379, 26379, 8000
_NAME = "lab14"
PRIMARY, SENTINEL, CLIENT, CHECK = f"{_NAME}-primary", "sentinel", "client", "check"  # lanes, as log servers are
_GIVES_WAY = 0.25  # how often a task lets others run where it could go on, at most: some runs are made for races
KEEP = 1500  # entries in the log, of which there are about 50 per second
_REMEMBERED_WRITES = 5000  # write ids, so that old ones are forgotten
_CHANGE_FIELDS = 6  # of each change in the arguments of append.lua, after the first three
_SCRIPTS = {
    register(redis.Redis(), *files).sha.encode(): files[-1]
    for files in (("server.lua", "append.lua"), ("groups.lua", "server.lua", "epoch.lua"), ("steady.lua",))
}


class Shape(NamedTuple):
    """``copies``: how many replicas of the log server have to confirm each write."""

    has_sentinel: bool
    copies: int

    @classmethod
    def of(cls, seed: int) -> Shape:
        random = random_of(seed, "lab")
        has_sentinel = random.random() < 0.5
        return cls(has_sentinel, int(has_sentinel and random.random() < 0.5))


def random_of(seed: int, what: str) -> Random:
    """Return a stream of random numbers of its own, so that a change of one leaves the others as they were."""
    return Random(f"{seed}/{what}")  # noqa: S311 - a simulation


class Saved(NamedTuple):
    """What a log server held at a moment, and the judge's model of it."""

    content: bytes
    line: Line


class World:
    def __init__(self, seed: int, directory: Path) -> None:
        self.seed, self._directory = seed, directory
        self.shape = Shape.of(seed)
        self.scheduler = Scheduler(self.draw("schedule"), _GIVES_WAY * self.draw("threads").random() ** 3)
        self.trace = Trace(self.scheduler, directory)
        self.judge = Judge(self.scheduler, self.trace)
        self.judge.holders = self._holders
        self.network = Network(self.scheduler, self.draw("network"))
        ids = self.draw("ids")
        self.servers = [
            self._server(number, lambda: f"{ids.getrandbits(160):040x}")
            for number in range(1 + self.shape.has_sentinel)
        ]
        self.master = self.servers[0]
        self.is_replicating = True
        self.at_next_append: Callable[[], object] = lambda: None  # called once the log has changes
        self.sentinel = Sentinel(SENTINEL, self.master)
        self.log_connections = LogConnections(self.network)
        self.log_connections.servers = {_SENTINEL_PORT: self.sentinel, **{one.port: one for one in self.servers}}
        self.http_connections = HttpConnections(self.network)
        self._disks = 0
        self.clients = Process(CLIENT)  # whoever uses the lab from outside
        self.disks: dict[str, Disk] = {}
        self.nodes: dict[str, Node] = {}
        self.add(0)
        for number in (1, 2):
            self.add(number)

    def draw(self, what: str) -> Random:
        return random_of(self.seed, what)

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(replaced.installed(self.scheduler, self.draw("primitives")))
            stack.enter_context(self.log_connections.installed())
            stack.enter_context(self.http_connections.installed())
            stack.enter_context(disk.installed(self.scheduler, self.disks))
            stack.enter_context(self.trace.following())
            stack.enter_context(patch.object(log, "REMEMBERED_WRITES", _REMEMBERED_WRITES))
            stack.enter_context(patch.object(os, "kill", self._end_current))
            try:
                yield
            finally:
                self.scheduler.kill(self.clients)
                for node in self.nodes.values():
                    node.end()

    # -- nodes --------------------------------------------------------------------------------------------------------

    @property
    def replicas(self) -> list[Node]:
        return [node for name, node in self.nodes.items() if name != PRIMARY]

    @property
    def primary(self) -> Node:
        return self.nodes[PRIMARY]

    def add(self, number: int) -> Node:
        """Add a replica by its number, 0 for the primary; it is not started."""
        role: Role = "replica" if number else "primary"
        name = f"{_NAME}-replica{number}" if number else PRIMARY
        port = _PRIMARY_PORT + number
        values = {
            "LAB_NODE_ID": name,
            "LAB_PORT": str(port),
            "LAB_ADVERTISE_URL": f"http://127.0.0.1:{port}",
            "LAB_REDIS_URL": f"redis+sentinel://127.0.0.1:{_SENTINEL_PORT}/{_NAME}/0"
            if self.shape.has_sentinel
            else f"redis://127.0.0.1:{_LOG_PORT}/0",
        }
        if number:
            values |= {
                "LAB_DELAY_MS": str(500 * number),
                "LAB_ACK_DELAY_MS": str(200 * (number - 1)),  # so that an end leaves applied entries pending
                "LAB_LINE_MAX_ENTRIES": "300",
            }
            self._disks += 1
            self.disks[name] = Disk(self._directory / f"{name}.{self._disks}", self.draw(f"disk {self._disks}"))
            self.judge.copies[name] = Copy(name)
        else:
            values |= {
                "LAB_LOG_KEEP": str(KEEP),
                "LAB_LOG_MAX": str(2 * KEEP),
                "LAB_LOG_COPIES": str(self.shape.copies),
            }
        node = self.nodes[name] = Node(
            self.scheduler, (self.log_connections, self.http_connections), role, values, self.disks.get(name)
        )
        node.on_app = partial(self._watch_replica, node) if number else self._watch_primary
        return node

    def _end_current(self, *_: object) -> None:
        """A process ends itself, once its task waits, and is started again."""
        process = self.scheduler.process
        node = self.nodes[process.name]
        self.scheduler.after(0, lambda: node.restart() if node.process is process and process.is_alive else None)

    def _watch_primary(self, _app: Any) -> None:
        self.judge.primary_started()

    def _watch_replica(self, node: Node, app: Any) -> None:
        """Tell the judge what a replica does, after it has happened."""
        parts, judge, name = app.extensions["node"].parts, self.judge, node.name
        store, inbox, clock = parts.store, parts.inbox, parts.clock
        judge.started(name, store.state().position, may_go_back=node.went_back)

        def told(
            call: Callable[..., Any], tell: Callable[..., None], before: Callable[..., None] = lambda *_: None
        ) -> Callable[..., Any]:
            def calling(*args: Any) -> Any:
                before(*args)
                found = call(*args)
                tell(found, *args)
                return found

            return calling

        store.apply = told(store.apply, lambda after, entries: judge.committed(name, entries, after))
        store.merge = told(
            store.merge, lambda _, entries, _before, after, _number: judge.committed(name, entries, after)
        )
        parts.applied.extend = told(
            parts.applied.extend, lambda _, done: judge.applied(name, [one.position for one in done])
        )
        store.install = told(store.install, lambda _, taken: judge.installed(name, taken))
        store.continue_at = told(store.continue_at, lambda _, position: judge.continued(name, position))
        store.digest = told(store.digest, lambda found: judge.content(name, found[0].position, int(found[2], 16)))
        # At some time of the call it begins to count.
        scheduled = partial(judge.scheduled, name)
        inbox.set_schedule = told(inbox.set_schedule, lambda _, schedule: scheduled(schedule), scheduled)
        clock.set_skew = told(clock.set_skew, lambda _, skew_us: judge.skewed(name, skew_us))

    def _holders(self) -> dict[str, Position]:
        """The newest position that each node knows now and would tell, or will: in memory or in its store."""
        found: dict[str, Position] = {}
        for node in self.nodes.values():
            if node.app is None:
                if node is not self.primary and not node.went_back and not node.is_away:
                    found[node.name] = self.judge.copies[node.name].durable
                continue
            owner = node.app.extensions["node"]
            found[node.name] = owner.delivered() if node is not self.primary else owner.parts.gate.state.position
        return found

    # -- log servers, and their failovers ----------------------------------------------------------------------------

    def _server(self, number: int, draw_id: Callable[[], str]) -> LogServer:
        server = LogServer(self.scheduler, f"log{number + 1}", _LOG_PORT + number, draw_id)
        server.is_master = number == 0
        server.copies = self._copies
        self.judge.lines[server.name] = Line()
        server.on_script = partial(self._script, server)
        server.on_write = self._written
        return server

    def _copies(self) -> int:
        """How many replicas of the log server confirm what it has."""
        return int(self.is_replicating and any(not one.is_master and one.is_up for one in self.servers))

    def save(self, server: LogServer) -> Saved:
        """Return what a log server holds now."""
        return Saved(server.content(), self.judge.lines[server.name].copy())

    def restart(self, server: LogServer, saved: Saved | None = None) -> None:
        """Start a log server that was stopped, with all that it had or with what was saved."""
        if saved is not None:
            self.judge.lines[server.name] = saved.line.copy()
        server.start(None if saved is None else saved.content)

    def set_clock(self, server: LogServer, offset_us: int) -> None:
        self.judge.clock_set(offset_us - server.offset_us)
        server.offset_us = offset_us

    def stop(self, server: LogServer) -> None:
        server.stop()
        self.log_connections.end_server(server)

    def promote(self, server: LogServer, saved: Saved | None) -> None:
        """Make a log server the master: with what it had received by then, or as the master that it still is."""
        if saved is not None:
            self.judge.lines[server.name] = saved.line.copy()
            server.promote(saved.content, self.master)
        self.judge.clock_set(server.offset_us - self.master.offset_us)
        self.master = server
        self.sentinel.promote(server)
        self.trace.add(SENTINEL, f"{server.name} is master", server.name)

    def _script(self, server: LogServer, sha: bytes, arguments: Sequence[bytes], reply: Any) -> None:
        name = _SCRIPTS.get(sha)
        if name is None or not isinstance(reply, list):
            return
        texts = [argument.decode() for argument in arguments]
        rows = [[cell.decode() if isinstance(cell, bytes) else cell for cell in _row(row)] for row in reply]
        if name == "append.lua":
            changes = [texts[n : n + 4] for n in range(3, len(texts), _CHANGE_FIELDS)]
            self.judge.appended(server.name, changes, rows)
            act, self.at_next_append = self.at_next_append, lambda: None
            act()
        elif name == "steady.lua":
            before, after = (int(row[0]) for row in rows)
            self.judge.clock_steadied(after - before)
        else:
            outcome, epoch, version = (row[0] for row in rows)
            self.judge.opened(server.name, outcome, Position(int(epoch), int(version)), texts[1])

    def _written(self, client: Process, name: str, arguments: Sequence[Any]) -> None:
        if name == "xack":
            _, group, *ids = arguments
            if client.is_alive:  # otherwise its store, in which they are committed, can be gone
                self.judge.acknowledged_by(group.decode(), [Position.of_entry(one.decode()) for one in ids])
        else:
            texts = [argument.decode() if isinstance(argument, bytes) else "" for argument in arguments]
            if "lost" in texts and "positions" in texts:
                self.judge.named(texts[texts.index("positions") + 1])


def _row(row: Any) -> list[Any]:
    return row if isinstance(row, list) else [row]
