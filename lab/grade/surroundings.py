"""Where a program is graded: a lab with built-in replicas beside it, and the tap between it and the log server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from broker.address import NotLocated, parse
from broker.clock import LogClock
from broker.connection import Link, connect
from broker.delay.models import Fixed
from broker.errors import LogError, LogUnreachable
from broker.log import ReplicationLog
from broker.position import Position
from broker.registry import Member, Registry, Settings
from lab.client import post
from lab.grade.tap import Tap
from lab.local.layout import NAMESPACE, free_port
from lab.local.supervisor import Lab
from lab.torture.target import NativeTarget

NODE = f"{NAMESPACE}-graded"
_FOLLOW_SECONDS = 0.1
_HEARTBEATS_APART = 10  # of those steps
_PENDING_MAX = 10_000


class Surroundings:
    """``url`` and ``port``: where the program listens."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.target = NativeTarget(lab)
        self.log_file = lab.data_dir / "logs" / f"{NODE}.log"  # what the program prints
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.node = NODE
        self._link = Link(parse(lab.redis_url, NAMESPACE))
        client = connect(self._link)
        self.log = ReplicationLog(client, NAMESPACE)
        self.registry = Registry(client, NAMESPACE)
        self._clock = LogClock(self.log.history.now_us, time.monotonic_ns, time.time_ns)
        self._clock.measure()
        self.now_us = self._clock.measured_us
        self.position: Callable[[], Position | None] = lambda: None  # that the program shows now
        self.on_acknowledge: Callable[[list[Position], int], None] = lambda *_: None
        self._server = self._locate()
        self.tap = Tap(lambda: self._server, self.log.history.stream, self._acknowledged, self.now_us)
        password = urlsplit(lab.redis_url).password
        self._redis_url = f"redis://:{password}@127.0.0.1:{self.tap.port}/0"
        self._registered_us = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="surroundings", daemon=True)

    def environment(self, data_dir: Path) -> dict[str, str]:
        """What a replica is given."""
        return {
            "LAB_REDIS_URL": self._redis_url,
            "LAB_NAMESPACE": NAMESPACE,
            "LAB_NODE_ID": self.node,
            "LAB_PORT": str(self.port),
            "LAB_DATA_DIR": str(data_dir),
        }

    @contextmanager
    def kept(self) -> Iterator[Self]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()
            self.tap.close()

    def empty(self, delay_ms: float) -> Position:
        """Reset the lab, and forget everything about the program. Returns the first position. Raises ``LabError``."""
        self._registered_us = 0
        self.registry.forget(self.node)
        self.log.group(self.node).leave()
        first = Position.parse(str(post(f"{self.lab.primary_url}/admin/reset", {})["position"]))
        self.registry.set_settings({self.node: Settings(Fixed(delay_ms))})
        return first

    def group(self) -> tuple[Position, frozenset[Position]] | None:
        """Return the last position delivered to the program, and those pending; ``None`` if it has no group."""
        delivered = self.log.history.delivered().positions
        if self.node not in delivered:
            return None
        return delivered[self.node], frozenset(self.log.history.deliveries(self.node, _PENDING_MAX))

    def _acknowledged(self, positions: list[Position], at_us: int) -> None:
        self.on_acknowledge(positions, at_us)

    def _locate(self) -> tuple[str, int]:
        """Return the log server that takes writes now. Raises ``LogUnreachable``."""
        try:
            found = self._link.address.locate()
        except NotLocated as error:
            raise LogUnreachable(str(error)) from error
        if found is not None:
            return found.host, found.port
        parts = urlsplit(self._link.address.url)
        return str(parts.hostname), int(parts.port or 0)

    def _run(self) -> None:
        """Cut the program's connections to a former master, and register the program unless it does so itself."""
        step = 0
        while not self._stop.wait(_FOLLOW_SECONDS):
            step += 1
            with suppress(LogError):
                if (found := self._locate()) != self._server:
                    self._server = found
                    self.tap.cut()
                if step % _HEARTBEATS_APART == 0:
                    self._beat()

    def _beat(self) -> None:
        position, now_us = self.position(), self.now_us()
        if position is None:
            return
        found = next((one for one in self.registry.members() if one.replica == self.node), None)
        if found is not None and found.seen_at_us != self._registered_us:
            return  # the program registers itself
        self._registered_us = now_us
        name_url = f"http://{self.node}:{self.port}"
        member = Member(self.node, name_url, self.url, position, seen_at_us=now_us, applied_at_us=0)
        self.registry.heartbeat(member, Settings(Fixed(0)))
