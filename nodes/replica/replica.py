"""The replica behind its endpoints: its threads, and reads of its store."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from broker.clock import LogClock
from broker.delay import Fixed, Schedule
from broker.entry import Record
from broker.events import Events
from broker.position import Position
from broker.registry import Member, Registry, Settings
from nodes.http import guard
from nodes.http.api import Query, TimeoutMs
from nodes.http.reading import PAGE_BYTES_MAX, PositionText
from nodes.http.times import ms, timestamp
from nodes.replica.acknowledger import Acknowledger
from nodes.replica.applier import Applier
from nodes.replica.audit import Audit
from nodes.replica.faults.active import ActiveFaults
from nodes.replica.history import AppliedHistory
from nodes.replica.inbox import Inbox
from nodes.replica.membership import Membership
from nodes.replica.reader import Reader
from nodes.replica.store import ReplicaStore, StoreDamaged
from nodes.runtime.background import Background
from nodes.runtime.config import ReplicaConfig
from nodes.runtime.gate import PositionGate, State

_logger = logging.getLogger("lab.replica")
_REGISTERED_SECONDS = 1.0  # then it looks whether it is to end
_SETTLE_SECONDS = 1.0
_CHECKPOINT_SECONDS = 1.0


class AppliedQuery(Query):
    """From where on: after a position, or what an earlier answer's cursor has not seen; and how many at the most.

    With a cursor the answer comes when there is something, or after ``timeout_ms``.
    """

    after: PositionText = "0-0"
    cursor: Annotated[str, Field(pattern=r"^([0-9a-f]{8}-[0-9]{1,15})?$")] = ""
    timeout_ms: TimeoutMs = 0
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class AppliedEntry(TypedDict):
    """When one entry was published, due and applied, by the log's clock."""

    position: str
    published_at: str | None
    due_at: str | None
    applied_at: str | None
    applied_after_ms: float
    lateness_ms: float


class AppliedAnswer(TypedDict):
    """What the replica has applied lately, in the order in which it did; ``delivered``: the newest it was given."""

    source: str
    position: str
    delivered: str
    cursor: str
    applied: list[AppliedEntry]


class ResyncAnswer(TypedDict):
    """That a snapshot will be taken."""

    source: str
    status: str


class Replica:
    """Answers from the replica's own store, and runs the threads that keep it up to date."""

    def __init__(
        self,
        config: ReplicaConfig,
        *,
        store: ReplicaStore,
        gate: PositionGate,
        inbox: Inbox,
        reader: Reader,
        applier: Applier,
        acknowledger: Acknowledger,
        history: AppliedHistory,
        clock: LogClock,
        registered: Registry,
        events: Events,
        audit: Audit,
        faults: ActiveFaults,
        end_process: Callable[[], None],
    ) -> None:
        self._config = config
        token = config.admin_token
        self._proof = "" if token is None else guard.proof(token, config.node_id, config.advertise_url)
        self._store = store
        self._gate = gate
        self._inbox = inbox
        self._reader = reader
        self._acknowledger = acknowledger
        self._applier = applier
        self._history = history
        self._clock = clock
        self._audit = audit
        self._end_process = end_process
        self._process = secrets.token_hex(4)  # cursors of another process count something else
        self.faults = faults
        self._membership = Membership(
            registered=registered,
            events=events,
            clock=clock,
            defaults=Settings(Fixed(config.delay_ms), config.ack_delay_ms),
            describe=self._describe,
            apply=self._apply_settings,
        )
        self._workers = {
            "reader": Background("reader", self._read),
            "applier": Background("applier", self._apply),
            "acknowledger": Background("acknowledger", self._acknowledge),
            "membership": Background("membership", self._membership.step),
            "checkpoint": Background("checkpoint", self._checkpoint),
            "audit": Background("audit", self._compare),
        }

    def start(self) -> None:
        """Start the threads."""
        for worker in self._workers.values():
            worker.start()

    def stop(self) -> None:
        """Wake who waits and end the threads; the store stays open for requests in progress."""
        for worker in self._workers.values():
            worker.stop()
        self.faults.stop()
        self._gate.close()
        self._history.close()
        self._inbox.close()
        self._acknowledger.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Where the replica is."""
        return self._gate.state

    def wait_for(self, target: Position, timeout_seconds: float) -> State:
        """Wait until that is applied, or the time is up."""
        return self._gate.wait_for(target, timeout_seconds)

    def reached_us(self, position: Position) -> tuple[int, int] | None:
        """When that was committed and when it was applied here."""
        applied = self._history.find(position)
        return (applied.at_us, applied.applied_us) if applied else None

    def page(self, after: str, limit: int) -> tuple[State, list[Record], bool]:
        """A page of the store. Raises ``nodes.runtime.store.StoreError``."""
        state, records, more = self._store.page(after, limit, PAGE_BYTES_MAX)
        return self._settled(state), records, more

    def get(self, key: str) -> tuple[State, Record | None]:
        """A record of the store. Raises ``nodes.runtime.store.StoreError``."""
        state, record = self._store.get(key)
        return self._settled(state), record

    def digest(self) -> tuple[State, int, str]:
        """The digest, computed from the stored content. Raises ``nodes.runtime.store.StoreError``."""
        state, keys, digest = self._store.digest()
        return self._settled(state), keys, digest

    def now_us(self) -> int:
        """The log's clock."""
        return self._clock.now_us()

    def applied(self, query: AppliedQuery) -> AppliedAnswer:
        """What was applied lately."""
        if query.cursor:
            process, _, count = query.cursor.partition("-")
            seen = int(count) if process == self._process else 0
            found, end = self._history.since(seen, query.limit, query.timeout_ms / 1000)
        else:
            found, end = self._history.after(Position.parse(query.after), query.limit), self._history.count
        return {
            "source": self._config.node_id,
            "position": str(self._gate.state.position),
            "delivered": str(self._reader.delivered),
            "cursor": f"{self._process}-{end}",
            "applied": [
                {
                    "position": str(applied.position),
                    "published_at": timestamp(applied.at_us),
                    "due_at": timestamp(applied.due_us),
                    "applied_at": timestamp(applied.applied_us),
                    "applied_after_ms": ms(applied.applied_us - applied.at_us),
                    "lateness_ms": ms(applied.applied_us - applied.due_us),
                }
                for applied in found
            ],
        }

    def resync(self) -> ResyncAnswer:
        """Have the content replaced by a snapshot of the primary's; reads are answered from the old one until then."""
        self._reader.want_resync()
        return {"source": self._config.node_id, "status": "resync requested"}

    @property
    def resyncing(self) -> str:
        """Why the content is being replaced by a snapshot just now, reads being answered from the old one; or empty."""
        return self._reader.resyncing

    def health(self) -> dict[str, str]:
        """Whether the log answers and the store takes what is due."""
        log = self._workers["reader"].trouble or self._workers["membership"].trouble
        if log is None and not (self._reader.joined and self._membership.registered):
            log = "joining"
        store = self._workers["applier"].trouble or self._workers["checkpoint"].trouble
        return {"log": log or "ok", "store": store or "ok"}

    def _settled(self, state: State) -> State:
        """A read may see a commit a moment before the gate shows it; afterwards nobody may be shown less."""
        self._gate.wait_for(state.position, _SETTLE_SECONDS)
        return state

    # -- the threads --------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        # Not before: what a replica of the same id elsewhere is to be given would be taken from it.
        if self._membership.wait_until_registered(_REGISTERED_SECONDS):
            self._reader.step()

    def _apply(self) -> None:
        self._inbox.wait_until_due()
        with self._begun_anew_where_damaged():
            self._applier.step()

    def _acknowledge(self) -> None:
        self._acknowledger.wait()
        self._acknowledger.step()

    def _checkpoint(self) -> None:
        self._store.checkpoint()
        self._workers["checkpoint"].pause(_CHECKPOINT_SECONDS)

    def _compare(self) -> None:
        with self._begun_anew_where_damaged():
            pause_seconds = self._audit.step()
        self._workers["audit"].pause(pause_seconds)

    @contextmanager
    def _begun_anew_where_damaged(self) -> Iterator[None]:
        """A store whose file is damaged is set aside when it is opened, so the process ends and is started again."""
        try:
            yield
        except StoreDamaged:
            _logger.exception("the store is damaged: ending, to begin it anew")
            self._end_process()
            raise

    def _describe(self) -> Member:
        newest = self._history.newest()
        return Member(
            replica=self._config.node_id,
            name_url=self._config.name_url,
            url=self._config.advertise_url,
            position=self._gate.state.position,
            seen_at_us=self._clock.measured_us(),  # by its own wrong clock it would be forgotten after an hour
            applied_at_us=newest.applied_us if newest else 0,
            diverged=self._audit.diverged,
            faults=self.faults.names(),
            resyncing=self._reader.resyncing,
            proof=self._proof,
        )

    def _apply_settings(self, settings: Settings) -> None:
        self._inbox.set_schedule(Schedule(settings.delay, settings.order, settings.seed, self._config.node_id))
        self._acknowledger.set_delay(settings.ack_delay_ms)
        _logger.info("settings in force: %s", settings.as_text())
