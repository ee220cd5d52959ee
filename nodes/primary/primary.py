"""The primary behind its endpoints: reads of its store, resets, and the upkeep of the log."""

import logging
import uuid
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from typing_extensions import TypedDict

from broker import lag
from broker.delay.models import Order
from broker.entry import Record
from broker.errors import LogBehind, LogError
from broker.position import Position
from broker.primary_store import Head
from broker.registry import Member
from nodes.http import guard
from nodes.http.api import Query
from nodes.http.peers import Ask, Reply
from nodes.http.reading import PAGE_BYTES_MAX
from nodes.http.times import ms, timestamp
from nodes.primary.losses import Losses
from nodes.primary.parts import Parts
from nodes.primary.upkeep import Retention, Verification
from nodes.runtime.background import Background
from nodes.runtime.gate import State

_logger = logging.getLogger("lab.primary")
UPKEEP_SECONDS = 1.0
RESET_WAIT_MS = 5000
FORGET_AFTER_SECONDS = 3600.0


class AgeQuery(Query):
    age_ms: Annotated[float, Field(ge=0, le=86_400_000)] = 0


class PositionAnswer(TypedDict):
    source: str
    position: str
    age_ms: float
    head: str


class ResetAnswer(TypedDict):
    """The new epoch, and for each replica ``emptied`` or why it is not empty yet."""

    status: str
    version: int
    epoch: int
    position: str
    replicas: dict[str, Any]


class ReplicaAnswer(TypedDict):
    """A replica by log, heartbeat and settings. ``proven``: it has the admin token. A delay is the mean of its model.

    ``pending`` entries are ``waiting`` until due, or applied and unacknowledged; both are ``null`` while unknown.
    ``lag_ms`` and ``ack_lag_ms``: age of the oldest unapplied and of the oldest unacknowledged write.
    ``applied_position`` is that of ``heartbeat_at``.
    """

    replica_id: str
    url: str
    proven: bool
    live: bool
    heartbeat_at: str
    applied_position: str
    lag_versions: int
    lag_ms: float
    acknowledged_version: int
    ack_lag_ms: float
    pending: int
    waiting: int | None
    applied_unacknowledged: int | None
    undelivered: int
    diverged: bool
    faults: list[str]
    resyncing: str
    order: Order
    delay_ms: float
    ack_delay_ms: float


class ScrapeTargets(TypedDict):
    """Hosts and ports in the format of Prometheus's HTTP service discovery."""

    targets: list[str]


class ReplicasAnswer(TypedDict):
    lab: str
    replicas: list[ReplicaAnswer]


class Primary:
    """Reads of the primary's store, which the log server holds. Methods raise ``broker.errors.LogError``."""

    def __init__(
        self,
        parts: Parts,
        verification: Verification,
        retention: Retention,
        losses: Losses,
        writable: Callable[[], None],
    ) -> None:
        """``writable`` raises ``LogError`` if the next write would not be accepted."""
        self.parts, self._log, self._gate = parts, parts.log, parts.gate
        self._verification, self._retention, self._losses, self._writable = verification, retention, losses, writable
        self._promise: str | None = None
        self._upkeep = Background("upkeep", self._step)
        self._following = Background("acknowledgements", parts.acknowledgements.step)
        self.now_us = parts.clock.now_us

    def start(self) -> None:
        self._upkeep.start()
        self._following.start()

    def stop(self) -> None:
        self._gate.close()
        self.parts.acknowledgements.close()
        self._upkeep.stop()
        self._following.stop()
        self.parts.peers.close()

    def state(self) -> State:
        known = self._gate.state.position
        return self._served(self._log.head(), known)

    def wait_for(self, target: Position, timeout_seconds: float) -> State:
        self._gate.wait_for(target, timeout_seconds)
        return self.state()

    def reached_us(self, position: Position) -> tuple[int, int] | None:
        found = self._log.history.between(position, position, 1)
        return (found[0].at_us, found[0].at_us) if found else None

    def hold(self) -> float:
        """Hold no read back: there is no delay on the primary."""
        return 0.0

    def page(self, after: str, limit: int) -> tuple[State, list[Record], bool]:
        known = self._gate.state.position
        page = self._log.page(after, limit, PAGE_BYTES_MAX)
        return self._served(page.head, known), page.records, page.more

    def get(self, key: str) -> tuple[State, Record | None]:
        known = self._gate.state.position
        head, record = self._log.get(key)
        return self._served(head, known), record

    def digest(self) -> tuple[State, int, str]:
        known = self._gate.state.position
        head = self._log.head()
        return self._served(head, known), head.keys, head.digest

    def position(self, age_ms: float) -> PositionAnswer:
        """The position that contains every write older than ``age_ms``."""
        known = self._gate.state.position
        position, head = self._log.history.before(round(age_ms * 1000))
        _require(head, known)
        return {"source": self.parts.config.node_id, "position": str(position), "age_ms": age_ms, "head": str(head)}

    def replicas(self) -> ReplicasAnswer:
        members = self.parts.registered.members()
        lags = lag.observe(self._log, members)
        settings = self.parts.registered.settings()
        now_us = self.now_us()

        def shown(member: Member) -> ReplicaAnswer:
            behind, configured = lags[member.replica], settings.get(member.replica)
            unacknowledged = self.parts.acknowledgements.unacknowledged(member)
            return {
                "replica_id": member.replica,
                "url": member.url,
                "proven": guard.is_proven(self.parts.config.admin_token, member.replica, member.url, member.proof),
                "live": member.is_live(now_us),
                "heartbeat_at": str(timestamp(member.seen_at_us)),
                "applied_position": str(member.position),
                "lag_versions": behind.versions,
                "lag_ms": ms(behind.seconds * 1e6),
                "acknowledged_version": behind.acknowledged,
                "ack_lag_ms": ms(behind.ack_seconds * 1e6),
                "pending": behind.pending,
                "waiting": None if unacknowledged is None else max(0, behind.pending - unacknowledged),
                "applied_unacknowledged": unacknowledged,
                "undelivered": behind.undelivered,
                "diverged": member.diverged,
                "faults": list(member.faults),
                "resyncing": member.resyncing,
                "order": configured.order if configured else "log",
                "delay_ms": configured.delay.mean_ms if configured else 0.0,
                "ack_delay_ms": configured.ack.mean_ms if configured else 0.0,
            }

        return {"lab": self._log.history.lab(), "replicas": [shown(member) for member in members]}

    def scrape_targets(self) -> list[ScrapeTargets]:
        return [{"targets": [urlsplit(member.url).netloc for member in self.parts.registered.members()]}]

    def health(self) -> dict[str, str]:
        """Whether the log responds, is complete and durable, and accepts writes."""
        log = ""
        try:
            verified = self._log.is_verified()
            log = (self._log.history.hazard() or "ok") if verified else "asking replicas whether the log is complete"
            self._writable()
        except LogError as error:
            return {"log": log or str(error), "writes": str(error)}
        return {"log": log, "writes": "ok"}

    def _served(self, head: Head, known: Position) -> State:
        _require(head.position, known)
        return self._seen(head)

    def _seen(self, head: Head) -> State:
        self._gate.advance(state := _state(head))
        return state

    def reset(self) -> ResetAnswer:
        """Start the next epoch, and return once every live replica has read it and is empty."""
        self._verification.require()
        position = self._log.reset(uuid.uuid4().hex, self._gate.state.position)
        self._seen(self._log.head())
        self.parts.events.publish("reset", position=str(position))
        now_us = self.parts.clock.now_us()
        self.parts.metrics.changed("reset", now_us)
        members = self.parts.registered.members()
        fields = {"min_position": str(position), "timeout_ms": str(RESET_WAIT_MS)}
        live = [member for member in members if member.is_live(now_us)]
        asks = {member.replica: Ask(f"{member.url}/version", fields=fields, wait_ms=RESET_WAIT_MS) for member in live}
        found = self.parts.peers.ask_all(asks)
        replicas = {member.replica: _emptied(found.get(member.replica)) for member in members}
        return ResetAnswer(status="reset", version=0, epoch=position.epoch, position=str(position), replicas=replicas)

    def forget(self, replica: str) -> bool:
        """Remove a replica that will not return, with its group; ``False`` if it is not registered."""
        if not self.parts.registered.forget(replica):
            return False
        self._log.group(replica).leave()
        self.parts.events.publish("left", replica=replica)
        return True

    def _step(self) -> None:
        self._verification.require()
        moved_us = self._log.steady(self.parts.clock.known_us())  # before the clock follows its server
        if moved_us:
            _logger.warning("the log server's clock was set by %.3f s; the log's time continues", -moved_us / 1e6)
        self.parts.clock.measure()
        now_us = self.parts.clock.now_us()
        members = self.parts.registered.members()
        self._verification.compare(members)
        head = self._log.head()
        self._seen(head)
        for lost in self._losses.find(head.position):
            _logger.error("%s", lost)
            self.parts.metrics.lost.inc(lost.writes)
        self._losses.announce()
        self._report_promise()
        for member in members:
            if now_us - member.seen_at_us > FORGET_AFTER_SECONDS * 1e6:
                self.forget(member.replica)
        self._retention.trim([member for member in members if member.is_live(now_us)])
        self._upkeep.pause(UPKEEP_SECONDS)

    def _report_promise(self) -> None:
        promise = self._log.history.promise()
        if promise not in {None, self._promise}:
            _logger.info("%s", promise)
        self._promise = promise


def _require(head: Position, known: Position) -> None:
    """Raise ``LogBehind`` if a log lacks what was known before it was read: its server has just taken over, and until
    a new epoch starts, readers would go back in time in this one.
    """
    if head < known:
        raise LogBehind(f"the log ends at {head}, before {known}, which was seen; a new epoch must start")


def _state(head: Head) -> State:
    return State(head.position, head.write_id, head.at_us)


def _emptied(reply: Any) -> dict[str, Any]:
    if reply is None:
        return {"error": "not live: it will be emptied when it returns"}
    if not isinstance(reply, Reply):
        return {"error": str(reply)}
    if reply.body.get("reached"):
        return {"status": "emptied", "position": reply.body["position"]}
    return {"error": f"has not reached the new epoch within {RESET_WAIT_MS} ms"}
