"""A primary on a fake log server, and its parts."""

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

from prometheus_client import CollectorRegistry

from broker.address import parse
from broker.clock import LogClock
from broker.connection import Link
from broker.delay.models import Fixed
from broker.errors import LogFull, LogUnverified
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Events, Member, Registry, Settings
from nodes.http.peers import Peers
from nodes.primary.acks import Acknowledgements
from nodes.primary.delays import Delays
from nodes.primary.losses import Losses
from nodes.primary.metrics import PrimaryMetrics
from nodes.primary.parts import Parts
from nodes.primary.primary import Primary
from nodes.primary.upkeep import Retention, Verification
from nodes.primary.writes import Writes
from nodes.runtime.config import PrimaryConfig, load
from nodes.runtime.gate import EMPTY_STATE, Places, PositionGate
from nodes.runtime.tracing import Tracing


def make_parts(log: Any, registry: CollectorRegistry, environment: dict[str, str] | None = None, **parts: Any) -> Parts:
    """Return parts with this log; omitted parts are unused."""
    config = load("primary", environment or {})
    assert isinstance(config, PrimaryConfig)
    unused: dict[str, Any] = {"registered": None, "events": None, "link": Link(parse(config.redis_url))}
    defaults: dict[str, Any] = {
        "gate": PositionGate(EMPTY_STATE, 10),
        "peers": Peers(2, lambda: 0.0),
        "clock": LogClock(lambda: 0, lambda: 0, lambda: 0),
        "metrics": PrimaryMetrics(registry),
        "acknowledgements": Acknowledgements(Mock(), getattr(log, "history", Mock()), Mock(), Places(10)),
    }
    return Parts(config=config, log=log, **{**unused, **defaults, **parts})


class Bench:
    """A primary on a fake log server, whose upkeep is stepped by hand."""

    def __init__(self, client: Any, peers: Peers | None = None, **environment: str) -> None:
        log, self.registered, self.events = ReplicationLog(client), Registry(client), Events(client)
        self.now_us = log.history.now_us()
        self.registry = CollectorRegistry()
        unrepaired = make_parts(
            log,
            self.registry,
            environment,
            registered=self.registered,
            events=self.events,
            clock=LogClock(lambda: self.now_us, lambda: 0, lambda: 0),
            **({} if peers is None else {"peers": peers}),
        )
        self.gate = unrepaired.gate
        times = iter(range(10**6))
        verification = Verification(unrepaired, monotonic=lambda: float(next(times)), pause=lambda _: None)
        self.now_seconds = 0.0
        self.retention = Retention(log, unrepaired.config)
        repairs = {LogUnverified: verification.require, LogFull: self.retention.shrink}
        parts = replace(unrepaired, log=ReplicationLog(client, repairs=repairs))
        self.parts, self.log = parts, parts.log
        self.losses = Losses(log.history, self.events, lambda: self.now_seconds)
        self.writes = Writes(parts, Tracing(), lambda: self.now_seconds, self.losses.acknowledged.extend)
        self.primary = Primary(parts, verification, self.retention, self.losses, self.writes.check)
        self.delays = Delays(parts)
        self.primary._upkeep.stop()  # so that its pause does not wait

    def upkeep(self) -> None:
        self.primary._step()

    def write(self, count: int) -> None:
        for _ in range(count):
            version = self.log.head().position.version + 1
            self.log.append("set", "k", str(version), f"w{version}")

    def write_one(self) -> None:
        self.log.append("set", "k", "1", "one more")

    def published(self, kind: str) -> list[dict[str, str]]:
        found = self.events.after("0-0", 1, 100) if self.events.last_id() != "0-0" else []
        return [event.fields for event in found if event.fields["kind"] == kind]

    def replica(self, name: str, version: int, seen_seconds_ago: float = 0) -> None:
        seen_at_us = round(self.now_us - seen_seconds_ago * 1e6)
        member = Member(name, f"http://{name}:8001", f"http://{name}", Position(1, version), seen_at_us, 0)
        self.registered.heartbeat(member, Settings(Fixed(500), Fixed(0)))

    def first(self) -> str:
        (entry,) = self.log.history.after(START, 1)
        return str(entry.position)
