"""Applying: what is due goes from the delay line into the store, and from there to who waits for it."""

from __future__ import annotations

from collections.abc import Callable

from broker.entry import Entry
from nodes.replica.acknowledger import Acknowledger
from nodes.replica.history import Applied, AppliedHistory
from nodes.replica.inbox import Inbox
from nodes.replica.metrics import ReplicaMetrics
from nodes.replica.progress import Progress
from nodes.replica.store import ReplicaStore
from nodes.runtime.gate import PositionGate, State
from nodes.runtime.store import StoreError
from nodes.runtime.tracing import Tracing

_BATCH = 1000


class Applier:
    """Takes entries that are due, in the order in which they are; commits them with the position; tells everybody."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        store: ReplicaStore,
        gate: PositionGate,
        acknowledger: Acknowledger,
        history: AppliedHistory,
        metrics: ReplicaMetrics,
        tracing: Tracing,
        now_us: Callable[[], int],
    ) -> None:
        self._inbox = inbox
        self._store = store
        self._gate = gate
        self._acknowledger = acknowledger
        self._history = history
        self._metrics = metrics
        self._tracing = tracing
        self._now_us = now_us
        self._progress = Progress()
        self._generation = store.generation

    def step(self) -> int:
        """Apply one batch of what is due now; return how many entries that was.

        Raises ``nodes.runtime.store.StoreError`` when the store refuses: the entries stay where they are.
        """
        due = self._inbox.due(_BATCH)
        if not due:
            return 0
        entries = [entry for entry, _ in due]
        began_us = self._now_us()
        try:
            state = self._apply(entries)
        except StoreError:
            self._metrics.failed()
            raise
        applied_us = self._now_us()
        self._history.extend([Applied(entry.position, entry.at_us, due_us, applied_us) for entry, due_us in due])
        self._gate.advance(state)
        self._inbox.take(due)
        self._acknowledger.add([entry.position for entry in entries])
        self._metrics.applied(due, applied_us)
        self._tracing.processed(due, began_us, applied_us)
        return len(due)

    def _apply(self, entries: list[Entry]) -> State:
        generation, before = self._store.generation, self._gate.state
        if generation != self._generation:  # a snapshot has taken the place of what had been applied beyond it
            self._progress, self._generation = Progress(), generation
        if not self._progress.beyond and before.position.is_followed_by_all(entry.position for entry in entries):
            return self._store.apply(entries)
        after, progress = self._progress.after(before, entries)
        self._store.merge(self._progress.visible(entries), before, after, generation)
        self._progress = progress
        return after
