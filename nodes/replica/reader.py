"""The reader moves entries from the replica's group into the delay line, each once and without gaps."""

import logging
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from broker import snapshot
from broker.entry import Entry, Operation
from broker.errors import LogBehind, LogError, PositionLost
from broker.position import START, Position
from nodes.replica.parts import READ_BLOCK_MS, Parts

_BATCH = 1000
_logger = logging.getLogger("lab.reader")


class Arrival(Enum):
    """How an entry relates to the newest one before it."""

    NEXT = auto()  # it follows; nothing is missing
    REPEATED = auto()  # it was delivered before
    CONTINUATION = (
        auto()
    )  # it starts an epoch that keeps the content at that position or, if the log lost its end, before
    GAP = auto()  # entries in between are missing


def classify(last: Position, entry: Entry) -> Arrival:
    """Classify an entry that is delivered when ``last`` is the position of the newest entry."""
    if entry.position == (last.epoch, last.version + 1):
        return Arrival.NEXT
    if entry.position <= last:
        return Arrival.REPEATED
    if (origin := entry.goes_on_from) is None:
        return Arrival.NEXT if last.is_followed_by(entry.position) else Arrival.GAP
    return Arrival.GAP if last < origin else Arrival.CONTINUATION


class Phase(Enum):
    """The reader's next action."""

    RECOVERING = auto()  # joins its group and takes in the pending entries: at the start and after every error
    READING = auto()  # reads new entries
    REWOUND = auto()  # reads again from before a gap; if the gap is still there, it installs a snapshot


@dataclass(frozen=True)
class ReaderState:
    """``last``: the newest position in the delay line, or of the store if nothing waits. ``applied``: that which a
    former process has applied, beyond ``last`` in order ``arrival``. ``resyncing``: why a snapshot is installed.
    """

    last: Position
    applied: Position
    phase: Phase = Phase.RECOVERING
    resyncing: str = ""

    @property
    def delivered(self) -> Position:
        """The newest position that this replica has seen."""
        return max(self.last, self.applied)


class Reader:
    """Reads pending entries first, then new ones. Only ``_move`` changes the state.

    A gap is closed by rewinding the group to ``last``; if the log no longer holds the missing entries, by a snapshot of
    the primary's store.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self._log = parts, parts.reading
        self._inbox, self._gate, self._acknowledger = parts.inbox, parts.gate, parts.acknowledger
        self._group = parts.reading.group(parts.config.node_id)
        self.state = ReaderState(parts.gate.state.position, parts.gate.state.newest)

    def step(self, block_ms: int = READ_BLOCK_MS) -> None:
        """Read one batch, waiting for it up to ``block_ms``. Raises ``broker.errors.LogError``."""
        try:
            self._read(block_ms)
        except LogError:
            self._move(phase=Phase.RECOVERING)  # a lost reply may have contained entries, which are now pending
            raise

    def _move(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def _read(self, block_ms: int) -> None:
        try:
            if self.state.phase is Phase.RECOVERING or self._parts.recheck_requested.is_set():
                self._parts.recheck_requested.clear()
                generation = self._parts.store.generation
                self._recover()
                self._require_rest()
                if self._parts.store.generation != generation:
                    return  # with a snapshot: what was pending before it is taken again
                self._move(phase=Phase.READING)
            if self._parts.resync_requested.is_set():
                self._parts.resync_requested.clear()
                self._resync("requested")
            else:
                self._read_new(block_ms)
        except PositionLost:
            self._close_gap()

    def _read_new(self, block_ms: int) -> None:
        self._acknowledger.wait_for_room()
        if room := self._inbox.wait_for_room():
            before = self.state.last
            entries = self._group.read(min(room, _BATCH), 1 if self.state.phase is Phase.REWOUND else block_ms)
            self._take(entries)
            if not entries:
                self._require_rest()
            elif self._parts.reads_again():
                self._group.rewind(before)

    def _require_rest(self) -> None:
        """Raise ``PositionLost`` if all that the log still has is behind it: then no entry shows the gap."""
        if self._log.head().position > self.state.last and not self._log.history.after(self.state.last, 1):
            raise PositionLost(f"what follows {self.state.last} was trimmed")

    def _recover(self) -> None:
        head, seen = self._log.head().position, self.state.delivered
        if head < seen:
            raise LogBehind(f"the log ends at {head}, before {seen} of this replica; a new epoch must start")
        self._group.join(self._gate.state.position)
        if self._is_of_another_history():
            self._resync("other_history")
        after = START
        self._acknowledger.recovering()
        while page := self._group.pending(after, _BATCH):
            after = page[-1][0]
            self._take_pending(page)
            self._inbox.wait_for_room()
        if self._group.last_delivered() > self.state.last:
            # Acknowledged but not in the store: lost in a power failure, or applied beyond the position.
            self._group.rewind(self.state.last)
        self._acknowledger.recovered(self._gate.state.position)

    def _is_of_another_history(self) -> bool:
        """Whether the log has another change at the store's position: it was lost and started over."""
        state = self._gate.state
        found = self._log.history.between(state.position, state.position, 1)
        return bool(found) and found[0].goes_on_from is None and found[0].write_id != state.write_id

    def _take_pending(self, page: list[tuple[Position, Entry | None]]) -> None:
        done = self._count_redelivered([position for position, _ in page])
        # A trimmed entry is lost unless it has been applied or waits in the line.
        lost = [position for position, entry in page if entry is None and position > self.state.last]
        if lost and not self._is_reset_after(lost[-1]):
            raise PositionLost(f"{lost[0]} was trimmed before this replica could read it")
        self._acknowledger.add([entry for _, entry in page if entry is not None and entry.position in done])
        gone = [position for position, entry in page if entry is None and position in done]
        self._acknowledger.discard(gone + lost)
        self._take([entry for _, entry in page if entry is not None], redelivered=True)

    def _is_reset_after(self, position: Position) -> bool:
        """Whether the oldest entry after this one is the start of an empty epoch, which makes it void."""
        return any(one.op == "epoch" and one.goes_on_from is None for one in self._log.history.after(position, 1))

    def _count_redelivered(self, positions: list[Position]) -> set[Position]:
        """Count entries that were delivered again; return those that are applied or void, to be acknowledged again."""
        done = {position for position in positions if position <= self.state.last and position not in self._inbox}
        self._parts.metrics.redelivered(len(positions), applied=len(done))
        return done

    def _take(self, entries: list[Entry], *, redelivered: bool = False) -> None:
        fresh: list[Entry] = []
        for entry in entries:
            arrival = classify(fresh[-1].position if fresh else self.state.last, entry)
            if arrival is Arrival.NEXT:
                fresh.append(entry)
            elif arrival is not Arrival.REPEATED:
                self._offer(fresh)
                fresh = []
                self._skip_to(entry, arrival)
            elif not redelivered and self._count_redelivered([entry.position]):
                self._acknowledger.add([entry])
        self._offer(fresh)

    def _offer(self, entries: list[Entry]) -> None:
        if entries:
            rewound = self.state.phase is Phase.REWOUND
            self._move(last=entries[-1].position, phase=Phase.RECOVERING if rewound else self.state.phase)
            self._acknowledger.discard(self._inbox.offer(entries))

    def _skip_to(self, entry: Entry, arrival: Arrival) -> None:
        if arrival is Arrival.GAP:
            raise PositionLost(f"{entry.position} does not follow {self.state.last}")
        if self.state.delivered > (entry.goes_on_from or entry.position):
            self._resync("log_rolled_back")
        elif self._inbox.wait_until_empty():
            self._gate.advance(self._parts.store.continue_at(entry.position))
            self._acknowledger.add([entry], entry.position)
            self._move(last=entry.position)

    def _close_gap(self) -> None:
        if self.state.phase is Phase.REWOUND:
            self._resync("gap")
        else:
            _logger.warning("gap after %s: reading again from there", self.state.last)
            self._group.rewind(self.state.last)
            self._move(phase=Phase.REWOUND)  # also if recovering: pending entries behind the gap are delivered again

    def _resync(self, reason: str) -> None:
        """Install a snapshot once it is due; until then, reads are answered from the old store."""
        self._move(resyncing=reason)
        try:
            taken = snapshot.take(self._log)
            _logger.warning("%s after %s: taking a snapshot of %s", reason, self.state.last, taken.position)
            # The change at the snapshot's position: the snapshot becomes visible when this is due.
            op: Operation = "set" if taken.position.version else "epoch"
            if self._inbox.hold(Entry(taken.position, op, "", "", taken.write_id, taken.at_us)):
                with self._inbox.clearing():
                    self._gate.replace(self._parts.store.install(taken))
                self._acknowledger.forget()
                self._parts.metrics.resynced(reason)
                self._move(last=taken.position, applied=START, phase=Phase.RECOVERING)
                self._group.rewind(taken.position)
        finally:
            self._move(resyncing="")
