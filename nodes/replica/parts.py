"""The parts of a replica and their wiring."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from broker import connection
from broker.address import parse
from broker.clock import LogClock
from broker.connection import Client, Link
from broker.delay.line import DelayLine
from broker.entry import Entry
from broker.log import ReplicationLog
from broker.registry import Events, Registry
from nodes.replica.history import Recent
from nodes.replica.metrics import ReplicaMetrics
from nodes.replica.queues import Acknowledger, Inbox
from nodes.replica.store import ReplicaStore
from nodes.runtime.config import ReplicaConfig
from nodes.runtime.gate import EMPTY_STATE, PositionGate
from nodes.runtime.metrics import make_gate
from nodes.runtime.serving import end_at_once
from nodes.runtime.tracing import Tracing

READ_BLOCK_MS = 5000  # how long a read of the log blocks while there are no entries
HEARTBEAT_MS = 1000
_HISTORY_CAPACITY = 20_000  # entries that GET /applied and GET /acknowledged can show


@dataclass
class Chance:
    """Return true with a probability, which is 0 until a fault changes it."""

    probability: float = 0

    def __call__(self) -> bool:
        return random.random() < self.probability  # noqa: S311 - chance, not a secret


@dataclass(frozen=True)
class Parts:
    """Objects shared by the threads, endpoints and faults of a replica."""

    config: ReplicaConfig
    link: Link  # to the log server; a partition cuts it
    log: ReplicationLog
    reading: ReplicationLog  # for reads, which block
    registry: Registry
    events: Events
    fault_events: Events  # not over the link, so a partition can be announced
    clock: LogClock
    store: ReplicaStore
    gate: PositionGate
    inbox: Inbox
    acknowledger: Acknowledger
    applied: Recent
    acknowledged: Recent
    metrics: ReplicaMetrics
    tracing: Tracing
    reads_again: Chance
    loses_acks: Chance
    uniform: Callable[[], float] = random.random  # draws the delays of reads
    end_process: Callable[[], None] = end_at_once
    recheck_requested: threading.Event = field(default_factory=threading.Event)  # of pending entries
    resync_requested: threading.Event = field(default_factory=threading.Event)


def make_parts(
    config: ReplicaConfig,
    tracing: Tracing,
    registry: CollectorRegistry,
    *,
    connect: Callable[..., Client] = connection.connect,
    monotonic_ns: Callable[[], int],
    wall_ns: Callable[[], int],
) -> Parts:
    """Wire the parts together. Raises ``nodes.runtime.store.StoreError``."""
    link = Link(parse(config.redis_url, config.namespace))
    # Each times out slightly after the longest time that the server can block.
    client = connect(link, answer_timeout_seconds=HEARTBEAT_MS / 1000 + 2)
    reading = connect(link, answer_timeout_seconds=READ_BLOCK_MS / 1000 + 5)
    log = ReplicationLog(client, config.namespace)
    clock = LogClock(log.history.now_us, monotonic_ns, wall_ns)
    line = DelayLine[Entry](max_entries=config.line_max_entries, max_bytes=config.line_max_bytes)
    store = ReplicaStore(config.data_dir)
    loses_acks = Chance()
    acknowledged, acknowledgements = PositionGate(EMPTY_STATE, config.threads // 16), Recent(_HISTORY_CAPACITY)
    return Parts(
        config=config,
        link=link,
        log=log,
        reading=ReplicationLog(reading, config.namespace),
        registry=Registry(client, config.namespace),
        events=Events(client, config.namespace),
        fault_events=Events(connect(Link(link.address)), config.namespace),
        clock=clock,
        store=store,
        gate=make_gate(store.state(), config.threads * 7 // 8, registry, lambda: acknowledged.waiters),
        inbox=Inbox(line, clock.now_us),
        acknowledger=Acknowledger(
            log.group(config.node_id), clock.measured_us, acknowledged, acknowledgements, loses_acks
        ),
        applied=Recent(_HISTORY_CAPACITY),
        acknowledged=acknowledgements,
        metrics=ReplicaMetrics(registry, config.node_id),
        tracing=tracing,
        reads_again=Chance(),
        loses_acks=loses_acks,
    )
