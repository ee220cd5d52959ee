"""The applier moves due entries from the delay line into the store, and wakes the requests waiting for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broker.entry import Entry
from broker.position import Position
from nodes.replica.history import Done
from nodes.replica.parts import Parts
from nodes.runtime.gate import State
from nodes.runtime.store import StoreError

_BATCH = 1000


@dataclass(frozen=True)
class Progress:
    """Entries applied beyond the store's position, in order ``arrival`` only; after a restart they are delivered again.
    ``deleted`` holds the newest delete of each key beyond the position, so that no older entry restores the key.
    """

    beyond: Mapping[Position, Entry] = field(default_factory=dict)
    deleted: Mapping[str, Position] = field(default_factory=dict)

    def after(self, state: State, entries: Sequence[Entry]) -> tuple[State, "Progress"]:
        """State and progress once these entries are applied on top of ``state``."""
        beyond, deleted = dict(self.beyond), dict(self.deleted)
        for entry in entries:
            if entry.op == "epoch":
                beyond, deleted, state = {}, {}, state.after(entry)
            elif entry.position > state.position:
                beyond[entry.position] = entry
                if entry.op == "delete":
                    deleted[entry.key] = max(entry.position, deleted.get(entry.key, entry.position))
        while (following := beyond.pop(Position(state.position.epoch, state.position.version + 1), None)) is not None:
            state = state.after(following)
        state = state._replace(beyond=max([state.beyond, *(position.version for position in beyond)]))
        return state, Progress(beyond, {key: at for key, at in deleted.items() if at > state.position})

    def visible(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries without those superseded by an applied delete."""
        return [entry for entry in entries if self.deleted.get(entry.key, entry.position) <= entry.position]


class Applier:
    """Commits due entries together with the position, then acknowledges them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._progress = Progress()
        self._generation = parts.store.generation

    def step(self) -> int:
        """Apply one batch of due entries; return their number.

        Raises ``nodes.runtime.store.StoreError`` if the store fails; the entries then stay in the line.
        """
        parts = self._parts
        generation = parts.store.generation  # before: a snapshot can replace the store and what is due at any time
        due = parts.inbox.due(_BATCH)
        if not due:
            return 0
        entries = [entry for entry, _ in due]
        started_us = parts.clock.now_us()
        try:
            state = self._apply(entries, generation)
        except StoreError:
            parts.metrics.failed()
            raise
        applied_us = parts.clock.now_us()
        parts.applied.extend([Done(entry.position, entry.at_us, due_us, applied_us) for entry, due_us in due])
        with parts.inbox.taking(due):
            parts.acknowledger.add(entries, state.position)
            parts.gate.advance(state)
        parts.metrics.applied(due, applied_us)
        parts.tracing.processed(due, started_us, applied_us)
        return len(due)

    def _apply(self, entries: list[Entry], generation: int) -> State:
        before = self._parts.gate.state
        if generation != self._generation:  # a snapshot has replaced the entries applied beyond the position
            self._progress, self._generation = Progress(), generation
        if not self._progress.beyond and before.position.is_followed_by_all(entry.position for entry in entries):
            return self._parts.store.apply(entries)
        after, progress = self._progress.after(before, entries)
        self._parts.store.merge(self._progress.visible(entries), before, after, generation)
        self._progress = progress
        return after
