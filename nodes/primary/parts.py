"""The parts of the primary and their wiring."""

import time
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry

from broker.address import parse
from broker.clock import LogClock
from broker.connection import Link, connect
from broker.log import ReplicationLog
from broker.registry import Events, Registry
from broker.report import Reports
from nodes.http.peers import Peers
from nodes.primary.acks import Acknowledgements
from nodes.primary.metrics import PrimaryMetrics
from nodes.runtime.config import PrimaryConfig
from nodes.runtime.gate import EMPTY_STATE, Places, PositionGate
from nodes.runtime.metrics import make_gate


@dataclass(frozen=True)
class Parts:
    """The shared objects; ``gate`` has the newest position that this primary has seen."""

    config: PrimaryConfig
    link: Link  # to the log server
    log: ReplicationLog
    registered: Registry
    events: Events
    gate: PositionGate
    acknowledgements: Acknowledgements
    peers: Peers
    clock: LogClock
    metrics: PrimaryMetrics


def make_parts(config: PrimaryConfig, registry: CollectorRegistry) -> Parts:
    link = Link(parse(config.redis_url, config.namespace))
    client = connect(link, max_connections=config.threads + 16)
    log = ReplicationLog(client, config.namespace)
    registered = Registry(client, config.namespace)
    reports = partial(Reports, client, config.namespace)
    acknowledgements = Acknowledgements(reports, log.history, registered, Places(config.threads // 2))
    return Parts(
        config=config,
        link=link,
        log=log,
        registered=registered,
        events=Events(client, config.namespace),
        gate=make_gate(EMPTY_STATE, config.threads * 3 // 8, registry, acknowledgements.waiting),
        acknowledgements=acknowledgements,
        peers=Peers(config.threads * 2, time.monotonic),
        clock=LogClock(log.history.now_us, time.monotonic_ns, time.time_ns),
        metrics=PrimaryMetrics(registry),
    )
