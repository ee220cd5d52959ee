"""A replica without processes and without waiting: its parts on a fake log server, a fake clock and a real file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry

from broker.delay.line import Schedule
from broker.delay.models import Fixed
from broker.log import ReplicationLog
from nodes.replica.applier import Applier
from nodes.replica.faults import ActiveFaults, FaultBody
from nodes.replica.parts import make_parts
from nodes.replica.reader import Reader
from nodes.replica.upkeep import Audit
from nodes.runtime.config import ReplicaConfig, load
from nodes.runtime.tracing import Tracing
from tests.support.clock import FakeClock

REPLICA = "lab14-replica1"


class Bench:
    """One replica, moved by hand: ``read``, ``apply`` and ``acknowledge`` are single steps of its threads."""

    def __init__(self, client: Any, directory: Path, *, delay_ms: float = 0, room: int = 1000) -> None:
        self.log = ReplicationLog(client)
        self.clock = FakeClock(self.log.history.now_us())
        self.registry = CollectorRegistry()
        config = cast("ReplicaConfig", load("replica", {"LAB_NODE_ID": REPLICA, "LAB_DATA_DIR": str(directory)}))
        config = replace(config, line_max_entries=room, line_max_bytes=10**7)
        self.parts = make_parts(
            config,
            Tracing(),
            self.registry,
            connect=lambda *_, **__: client,
            monotonic_ns=lambda: self.clock.us * 1000,
            wall_ns=lambda: self.clock.us * 1000,
        )
        self.parts.inbox.set_schedule(Schedule(Fixed(delay_ms)))
        self.parts.acknowledger.set_schedule(Schedule(Fixed(0)))
        self.store = self.parts.store
        self.inbox = self.parts.inbox
        self.acknowledger = self.parts.acknowledger
        self.history = self.parts.applied
        self.reader = Reader(self.parts)
        self.applier = Applier(self.parts)

    def read(self) -> None:
        """One step of the reader."""
        self.reader.step(block_ms=1)

    def apply(self) -> int:
        """Apply everything that is due; return the number of entries."""
        count = 0
        while applied := self.applier.step():
            count += applied
        return count

    def acknowledge(self) -> None:
        """Send every acknowledgement that is due."""
        while self.acknowledger.step()[0]:
            pass

    def catch_up(self, rounds: int = 5) -> Bench:
        """Read, apply and acknowledge, by default until nothing changes; return this bench."""
        for _ in range(rounds):
            self.read()
            self.clock.us = max(self.clock.us, self.log.history.now_us())
            self.apply()
            self.acknowledge()
        return self

    def position(self) -> str:
        """The store's position."""
        return str(self.store.state().position)

    def data(self) -> dict[str, str]:
        """The store's content."""
        return {record.key: record.value for record in self.store.page("", 10_000, 10**9)[1]}

    def pending(self) -> int:
        """The number of unacknowledged entries of its group."""
        return next(group.pending for group in self.log.history.groups() if group.replica == REPLICA)

    def count(self, name: str, **labels: str) -> float:
        """A counter's value."""
        return self.registry.get_sample_value(name, {"replica": REPLICA, **labels}) or 0.0

    def close(self) -> None:
        """Close the store, as the end of the process would."""
        self.store.close()


class Broken:
    """A replica on a fake log server, and its faults."""

    def __init__(self, fake: Any, directory: Path) -> None:
        self.log = ReplicationLog(fake)
        self.log.open("o")
        self.bench = Bench(fake, directory)
        self.ended = threading.Event()
        self.events = self.bench.parts.events
        self.clock = self.bench.parts.clock
        self.faults = ActiveFaults(replace(self.bench.parts, end_process=self.ended.set))

    def audit(self, monotonic: Callable[[], float] = lambda: 0.0) -> Audit:
        """An audit of its content."""
        return Audit(self.bench.parts, monotonic)

    def start(self, **fault: Any) -> Any:
        """Start a fault."""
        return self.faults.start(FaultBody.model_validate(fault).root)

    def write(self, count: int) -> None:
        """Append entries to the log."""
        for _ in range(count):
            version = self.log.head().position.version + 1
            self.log.append("set", f"k{version}", str(version), f"w{version}")
