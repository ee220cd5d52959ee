"""The replica behind its endpoints: its threads, and reads of its store."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from broker.delay.line import Schedule
from broker.delay.models import DelayModel, Fixed
from broker.entry import Record
from broker.position import Position
from broker.registry import Member, Settings
from nodes.http import guard
from nodes.http.reading import PAGE_BYTES_MAX
from nodes.replica.applier import Applier
from nodes.replica.faults import ActiveFaults
from nodes.replica.history import Done, Recent
from nodes.replica.parts import Parts
from nodes.replica.reader import Phase, Reader
from nodes.replica.upkeep import Audit, Membership
from nodes.runtime.background import Background
from nodes.runtime.gate import State
from nodes.runtime.store import StoreDamaged

_logger = logging.getLogger("lab.replica")
_REGISTERED_SECONDS = 1.0  # the reader's wait for the registration, which bounds how late it notices a stop
_SETTLE_SECONDS = 1.0  # a read's wait for the gate to catch up with the store's commits
_CHECKPOINT_SECONDS = 1.0


class Replica:
    """Serves reads from the replica's own store, and runs the threads that keep it up to date.

    ``nodes.http.reading.Reads`` describes the reads, which raise ``nodes.runtime.store.StoreError``.
    """

    def __init__(self, parts: Parts) -> None:
        config, token = parts.config, parts.config.admin_token
        self.parts = parts
        self.faults = ActiveFaults(parts)
        self._proof = guard.proof(token, config.node_id, config.advertise_url) if token else ""
        self._read_delay: DelayModel = Fixed(0)
        self._process = secrets.token_hex(4)  # marks cursors, which count the entries of one process
        self._reader = Reader(parts)
        self._applier = Applier(parts)
        self._audit = Audit(parts)
        self._membership = Membership(parts, self._describe, self._apply_settings)
        steps = {
            "reader": self._read,
            "applier": self._apply,
            "acknowledger": self._acknowledge,
            "membership": self._membership.step,
            "checkpoint": self._checkpoint,
            "audit": self._compare,
        }
        self._threads = {name: Background(name, step) for name, step in steps.items()}

    def start(self) -> None:
        for thread in self._threads.values():
            thread.start()

    def stop(self) -> None:
        """End the threads and wake waiting requests; the store stays open for requests in progress."""
        for thread in self._threads.values():
            thread.stop()
        self.faults.stop()
        parts = self.parts
        for part in (parts.gate, parts.applied, parts.inbox, parts.acknowledger, parts.acknowledged):
            part.close()

    def state(self) -> State:
        return self.parts.gate.state

    def wait_for(self, target: Position, timeout_seconds: float) -> State:
        return self.parts.gate.wait_for(target, timeout_seconds)

    def reached_us(self, position: Position) -> tuple[int, int] | None:
        return self._times(self.parts.applied, position)

    def acknowledged(self) -> Position | None:
        """The acknowledged position; ``None`` until the entries left pending by an earlier process are known."""
        return self.parts.acknowledger.position

    def wait_for_acknowledgement(self, position: Position, timeout_seconds: float) -> bool:
        """Wait until the entry at this position is acknowledged; return whether it is."""
        gate = self.parts.acknowledger.gate
        epoch = gate.wait_for(position, timeout_seconds).position.epoch
        return gate.is_reached(position) and position.epoch >= epoch

    def acknowledged_us(self, position: Position) -> tuple[int, int] | None:
        """When the entry was committed, and acknowledged; ``None`` if unknown."""
        return self._times(self.parts.acknowledged, position)

    def counts(self) -> tuple[int, int]:
        """How many delivered entries wait until they are due, and how many are applied and not acknowledged."""
        return len(self.parts.inbox), len(self.parts.acknowledger)

    def hold(self) -> float:
        """Hold a read back for the configured delay; return the drawn milliseconds."""
        held_ms = self._read_delay.draw_ms(self.parts.uniform())
        self.parts.gate.hold(held_ms / 1000)
        return round(held_ms, 3)

    def page(self, after: str, limit: int) -> tuple[State, list[Record], bool]:
        state, records, more = self.parts.store.page(after, limit, PAGE_BYTES_MAX)
        return self._settled(state), records, more

    def get(self, key: str) -> tuple[State, Record | None]:
        state, record = self.parts.store.get(key)
        return self._settled(state), record

    def digest(self) -> tuple[State, int, str]:
        state, keys, digest = self.parts.store.digest()
        return self._settled(state), keys, digest

    def now_us(self) -> int:
        return self.parts.clock.now_us()

    def delivered(self) -> Position:
        return self._reader.state.delivered

    @property
    def phase(self) -> Phase:
        """The reader's next action."""
        return self._reader.state.phase

    def after(self, recent: Recent, position: Position, limit: int) -> tuple[list[Done], str]:
        """Recent entries after a position, and the cursor to continue with."""
        return recent.after(position, limit), f"{self._process}-{recent.count}"

    def since(self, recent: Recent, cursor: str, limit: int, timeout_seconds: float) -> tuple[list[Done], str]:
        """Entries since a cursor was issued, waiting for the first one. Raises ``HistoryBusy``."""
        process, _, count = cursor.partition("-")
        seen = int(count) if process == self._process else 0
        found, end = recent.since(seen, limit, timeout_seconds)
        return found, f"{self._process}-{end}"

    @property
    def resyncing(self) -> str:
        """The reason for installing a snapshot, or empty. Until it is installed, reads see the old content."""
        return self._reader.state.resyncing

    def health(self) -> dict[str, str]:
        """Whether the log responds and the store accepts due entries."""
        troubles = (self._threads[name].trouble for name in ("reader", "membership", "acknowledger"))
        log = next(filter(None, troubles), None)
        if log is None and (self.phase is Phase.RECOVERING or not self._membership.registered.is_set()):
            log = "joining"
        store = self._threads["applier"].trouble or self._threads["checkpoint"].trouble
        return {"log": log or "ok", "store": store or "ok"}

    @staticmethod
    def _times(recent: Recent, position: Position) -> tuple[int, int] | None:
        done = recent.find(position)
        return (done.at_us, done.done_us) if done else None

    def _settled(self, state: State) -> State:
        """Let the gate catch up with a commit that a read has seen, so no later request sees less."""
        self.parts.gate.wait_for(state.position, _SETTLE_SECONDS)
        return state

    def _read(self) -> None:
        # Not earlier: it would take entries from another live replica with the same id.
        if self._membership.registered.wait(_REGISTERED_SECONDS):
            with self._ending_if_damaged():
                self._reader.step()

    def _apply(self) -> None:
        self.parts.inbox.wait_until_due()
        with self._ending_if_damaged():
            self._applier.step()

    def _acknowledge(self) -> None:
        parts = self.parts
        parts.acknowledger.wait()
        entries, acknowledged_us = parts.acknowledger.step()
        parts.metrics.acknowledged(entries, acknowledged_us)
        parts.tracing.acknowledged(entries, acknowledged_us)

    def _checkpoint(self) -> None:
        self.parts.store.checkpoint()
        self._threads["checkpoint"].pause(_CHECKPOINT_SECONDS)

    def _compare(self) -> None:
        with self._ending_if_damaged():
            pause_seconds = self._audit.step()
        self._threads["audit"].pause(pause_seconds)

    @contextmanager
    def _ending_if_damaged(self) -> Iterator[None]:
        """End the process if the store is damaged: the restarted one quarantines the file and rebuilds the store."""
        try:
            yield
        except StoreDamaged:
            _logger.exception("the store is damaged: exiting to rebuild it")
            self.parts.end_process()
            raise

    def _describe(self) -> Member:
        config, newest = self.parts.config, self.parts.applied.newest()
        return Member(
            replica=config.node_id,
            name_url=config.name_url,
            url=config.advertise_url,
            position=self.state().position,
            seen_at_us=self.parts.clock.measured_us(),  # without skew, which could make the replica look dead
            applied_at_us=newest.done_us if newest else 0,
            acknowledged=self.acknowledged(),
            unacknowledged=len(self.parts.acknowledger) if self.acknowledged() is not None else None,
            diverged=self._audit.diverged,
            faults=self.faults.names(),
            resyncing=self.resyncing,
            proof=self._proof,
        )

    def _apply_settings(self, settings: Settings) -> None:
        name = self.parts.config.node_id
        self.parts.inbox.set_schedule(Schedule(settings.delay, settings.order, settings.seed, name))
        self.parts.acknowledger.set_schedule(Schedule(settings.ack, settings.order, settings.seed, f"{name}/ack"))
        self._read_delay = settings.read
        _logger.info("active settings: %s", settings.as_text())
