"""The primary behind its endpoints: reads of its store, resets, and the upkeep of the log."""

from __future__ import annotations

import logging
import uuid
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from typing_extensions import TypedDict

from broker import lag
from broker.clock import LogClock
from broker.delay import Order
from broker.entry import Record
from broker.errors import LogError
from broker.events import Events
from broker.log import Head, ReplicationLog
from broker.position import Position
from broker.registry import Registry
from nodes.http import guard
from nodes.http.answers import PAGE_BYTES_MAX
from nodes.http.api import Query
from nodes.http.peers import Ask, Peers, Reply
from nodes.http.times import ms
from nodes.primary.acceptance import Acceptance
from nodes.primary.metrics import PrimaryMetrics
from nodes.primary.retention import Retention
from nodes.primary.verification import Verification
from nodes.runtime.background import Background
from nodes.runtime.config import PrimaryConfig
from nodes.runtime.gate import PositionGate, State

_logger = logging.getLogger("lab.primary")
UPKEEP_SECONDS = 1.0
RESET_WAIT_MS = 5000
FORGET_AFTER_SECONDS = 3600.0


class AgeQuery(Query):
    """How old what is asked for is at least."""

    age_ms: Annotated[float, Field(ge=0, le=86_400_000)] = 0


class PositionAnswer(TypedDict):
    """The newest position that was committed at least ``age_ms`` ago, and the newest of all."""

    source: str
    position: str
    age_ms: float
    head: str


class ResetAnswer(TypedDict):
    """The new epoch, and for each replica ``emptied``, or why not yet."""

    status: str
    version: int
    epoch: int
    position: str
    replicas: dict[str, Any]


class ReplicaAnswer(TypedDict):
    """A registered replica, as the log, its last heartbeat and its settings show it. ``delay_ms``: the model's mean.

    ``proven``: whether the lab has an admin token, and the replica at this URL knows it.
    """

    replica_id: str
    url: str
    proven: bool
    live: bool
    applied_position: str
    lag_versions: int
    lag_ms: float
    pending: int
    undelivered: int
    diverged: bool
    faults: list[str]
    resyncing: str
    order: Order
    delay_ms: float


class ScrapeTargets(TypedDict):
    """Hosts and ports, as Prometheus's HTTP service discovery reads them."""

    targets: list[str]


class ReplicasAnswer(TypedDict):
    """Every registered replica, and the id of the lab that they replicate."""

    lab: str
    replicas: list[ReplicaAnswer]


class Primary:
    """Answers from the primary's store, which the log server holds. Methods raise ``broker.errors.LogError``."""

    def __init__(
        self,
        config: PrimaryConfig,
        *,
        log: ReplicationLog,
        registered: Registry,
        events: Events,
        gate: PositionGate,
        peers: Peers,
        clock: LogClock,
        metrics: PrimaryMetrics,
        verification: Verification,
        acceptance: Acceptance,
        retention: Retention,
    ) -> None:
        self._config = config
        self._log = log
        self._registered = registered
        self._events = events
        self._gate = gate
        self._peers = peers
        self._clock = clock
        self._metrics = metrics
        self._verification = verification
        self._acceptance = acceptance
        self._retention = retention
        self._upkeep = Background("upkeep", self._step)

    def start(self) -> None:
        """Start the upkeep of the log."""
        self._upkeep.start()

    def stop(self) -> None:
        """Wake who waits and end the upkeep."""
        self._gate.close()
        self._upkeep.stop()
        self._peers.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Where the primary is."""
        return self._seen(self._log.head())

    def wait_for(self, target: Position, timeout_seconds: float) -> State:
        """Wait until that is committed, or the time is up."""
        self._gate.wait_for(target, timeout_seconds)
        return self.state()

    def reached_us(self, position: Position) -> tuple[int, int] | None:
        """When that was committed, which is when the primary applied it."""
        found = self._log.history.between(position, position, 1)
        return (found[0].at_us, found[0].at_us) if found else None

    def page(self, after: str, limit: int) -> tuple[State, list[Record], bool]:
        """A page of the primary's store."""
        page = self._log.page(after, limit, PAGE_BYTES_MAX)
        return _state(page.head), page.records, page.more

    def get(self, key: str) -> tuple[State, Record | None]:
        """A record of the primary's store."""
        head, record = self._log.get(key)
        return _state(head), record

    def digest(self) -> tuple[State, int, str]:
        """The digest that the append script keeps up to date."""
        head = self._log.head()
        return _state(head), head.keys, head.digest

    def now_us(self) -> int:
        """The log's clock."""
        return self._clock.now_us()

    def position(self, age_ms: float) -> PositionAnswer:
        """What a reader has to have who must not miss anything older."""
        position, head = self._log.history.before(round(age_ms * 1000))
        return {"source": self._config.node_id, "position": str(position), "age_ms": age_ms, "head": str(head)}

    def replicas(self) -> ReplicasAnswer:
        """Every registered replica."""
        members = self._registered.members()
        lags = lag.observe(self._log, members)
        settings = self._registered.settings()
        now_us = self._clock.now_us()
        return {
            "lab": self._log.lab(),
            "replicas": [
                {
                    "replica_id": member.replica,
                    "url": member.url,
                    "proven": guard.is_proven(self._config.admin_token, member.replica, member.url, member.proof),
                    "live": member.is_live(now_us),
                    "applied_position": str(member.position),
                    "lag_versions": lags[member.replica].versions,
                    "lag_ms": ms(lags[member.replica].seconds * 1e6),
                    "pending": lags[member.replica].pending,
                    "undelivered": lags[member.replica].undelivered,
                    "diverged": member.diverged,
                    "faults": list(member.faults),
                    "resyncing": member.resyncing,
                    "order": settings[member.replica].order if member.replica in settings else "log",
                    "delay_ms": settings[member.replica].delay.mean_ms if member.replica in settings else 0.0,
                }
                for member in members
            ],
        }

    def scrape_targets(self) -> list[ScrapeTargets]:
        """Where every registered replica serves its metrics."""
        return [{"targets": [urlsplit(member.url).netloc for member in self._registered.members()]}]

    def health(self) -> dict[str, str]:
        """Whether the log answers, has everything and will keep it, and whether it takes writes."""
        try:
            verified = self._log.is_verified()
            log = (self._log.history.hazard() or "ok") if verified else "asking the replicas whether it has everything"
        except LogError as error:
            return {"log": str(error), "writes": str(error)}
        try:
            self._acceptance.require()
        except LogError as error:
            return {"log": log, "writes": str(error)}
        return {"log": log, "writes": "ok"}

    def _seen(self, head: Head) -> State:
        state = _state(head)
        self._gate.advance(state)
        return state

    # -- resetting and upkeep -----------------------------------------------------------------------------------------

    def reset(self) -> ResetAnswer:
        """Begin the next epoch, and answer when every live replica has read that and is empty."""
        self._verification.require()
        position = self._log.reset(uuid.uuid4().hex, self._gate.state.position)
        self._seen(self._log.head())
        self._events.publish("reset", position=str(position))
        now_us = self._clock.now_us()
        self._metrics.changed("reset", now_us)
        members = self._registered.members()
        fields = {"min_position": str(position), "timeout_ms": str(RESET_WAIT_MS)}
        asks = {
            member.replica: Ask(f"{member.url}/version", fields=fields, wait_ms=RESET_WAIT_MS)
            for member in members
            if member.is_live(now_us)
        }
        found = self._peers.ask_all(asks)
        return {
            "status": "reset",
            "version": 0,
            "epoch": position.epoch,
            "position": str(position),
            "replicas": {member.replica: _emptied(found.get(member.replica)) for member in members},
        }

    def forget(self, replica: str) -> bool:
        """Remove a replica that will not come back, with its group; ``False`` where there is none of that name."""
        if not self._registered.forget(replica):
            return False
        self._log.group(replica).leave()
        self._events.publish("left", replica=replica)
        return True

    def _step(self) -> None:
        self._verification.require()
        moved_us = self._log.steady(self._clock.known_us())  # before the clock follows its server
        if moved_us:
            _logger.warning("the log server's clock was set by %.3f s; the log's time goes on", -moved_us / 1e6)
        self._clock.measure()
        now_us = self._clock.now_us()
        members = self._registered.members()
        self._verification.compare(members)
        self._seen(self._log.head())
        for member in members:
            if now_us - member.seen_at_us > FORGET_AFTER_SECONDS * 1e6:
                self.forget(member.replica)
        self._retention.trim([member for member in members if member.is_live(now_us)])
        self._upkeep.pause(UPKEEP_SECONDS)


def _state(head: Head) -> State:
    return State(head.position, head.write_id, head.at_us)


def _emptied(reply: Any) -> dict[str, Any]:
    if reply is None:
        return {"error": "not live: it will be emptied when it comes back"}
    if isinstance(reply, Reply) and reply.body.get("reached"):
        return {"status": "emptied", "position": reply.body["position"]}
    if isinstance(reply, Reply):
        return {"error": f"has not reached the new epoch within {RESET_WAIT_MS} ms"}
    return {"error": str(reply)}
