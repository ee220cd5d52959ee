"""A replica without processes and without waiting: its parts on a fake log server, a fake clock and a real file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from broker.delay import Fixed, Schedule
from broker.delay.line import DelayLine
from broker.log import ReplicationLog
from nodes.replica.acknowledger import Acknowledger
from nodes.replica.applier import Applier
from nodes.replica.history import AppliedHistory
from nodes.replica.inbox import Inbox
from nodes.replica.metrics import ReplicaMetrics
from nodes.replica.reader import Reader
from nodes.replica.store import ReplicaStore
from nodes.runtime.gate import PositionGate
from nodes.runtime.tracing import Tracing
from tests.support.clock import FakeClock

REPLICA = "lab14-replica1"


class Bench:
    """One replica, moved by hand: ``read``, ``apply`` and ``acknowledge`` are single steps of its threads."""

    def __init__(self, client: Any, directory: Path, *, delay_ms: float = 0, room: int = 1000) -> None:
        self.log = ReplicationLog(client)
        self.clock = FakeClock(self.log.history.now_us())
        self.registry = CollectorRegistry()
        self.store = ReplicaStore(directory)
        self.gate = PositionGate(self.store.state(), 100)
        self.inbox = Inbox(DelayLine(max_entries=room, max_bytes=10**7), self.clock.now_us)
        self.inbox.set_schedule(Schedule(Fixed(delay_ms)))
        self.acknowledger = Acknowledger(self.log, REPLICA, 0, self.clock.now_us)
        self.history = AppliedHistory(1000)
        metrics = ReplicaMetrics(self.registry, REPLICA)
        parts: dict[str, Any] = {
            "inbox": self.inbox,
            "store": self.store,
            "gate": self.gate,
            "acknowledger": self.acknowledger,
            "metrics": metrics,
        }
        self.reader = Reader(log=self.log, replica=REPLICA, **parts)
        self.applier = Applier(history=self.history, tracing=Tracing(), now_us=self.clock.now_us, **parts)

    def read(self) -> None:
        """One step of the reader."""
        self.reader.step(block_ms=1)

    def apply(self) -> int:
        """Everything that is due; how many entries that was."""
        count = 0
        while applied := self.applier.step():
            count += applied
        return count

    def acknowledge(self) -> None:
        """Everything whose acknowledgement is due."""
        while self.acknowledger.step():
            pass

    def catch_up(self) -> None:
        """Read, apply and acknowledge until nothing moves."""
        for _ in range(5):
            self.read()
            self.clock.us = max(self.clock.us, self.log.history.now_us())
            self.apply()
            self.acknowledge()

    def position(self) -> str:
        """Where the store is."""
        return str(self.store.state().position)

    def data(self) -> dict[str, str]:
        """What the store holds."""
        return {record.key: record.value for record in self.store.page("", 10_000, 10**9).records}

    def pending(self) -> int:
        """What its group has not acknowledged."""
        return next(group.pending for group in self.log.history.groups() if group.replica == REPLICA)

    def count(self, name: str, **labels: str) -> float:
        """A counter's value."""
        return self.registry.get_sample_value(name, {"replica": REPLICA, **labels}) or 0.0

    def close(self) -> None:
        """As the end of the process would."""
        self.store.close()
