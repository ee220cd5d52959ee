"""How far a replica is: the position below which nothing is missing, and what it has applied beyond that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broker.entry import Entry
from broker.position import Position
from nodes.runtime.gate import State


@dataclass(frozen=True)
class Progress:
    """What has been applied beyond the store's position, which happens in order ``arrival`` only.

    It is remembered in memory: after a restart the log gives everything after the position again. ``deleted`` holds the
    newest delete of each key beyond the position, so that no older entry brings the key back.
    """

    beyond: Mapping[Position, Entry] = field(default_factory=dict)
    deleted: Mapping[str, Position] = field(default_factory=dict)

    def after(self, state: State, entries: Sequence[Entry]) -> tuple[State, Progress]:
        """Where the replica is once it has applied these too, on top of ``state``."""
        beyond, deleted = dict(self.beyond), dict(self.deleted)
        for entry in entries:
            if entry.op == "epoch":
                beyond, deleted, state = {}, {}, _at(entry)
            elif entry.position > state.position:
                beyond[entry.position] = entry
                if entry.op == "delete":
                    deleted[entry.key] = max(entry.position, deleted.get(entry.key, entry.position))
        while (entry_ := beyond.pop(_next(state.position), None)) is not None:
            state = _at(entry_)
        return state, Progress(beyond, {key: at for key, at in deleted.items() if at > state.position})

    def visible(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries without those that an applied delete has made void already."""
        return [entry for entry in entries if self.deleted.get(entry.key, entry.position) <= entry.position]


def _next(position: Position) -> Position:
    return Position(position.epoch, position.version + 1)


def _at(entry: Entry) -> State:
    return State(entry.position, entry.write_id, entry.at_us)
