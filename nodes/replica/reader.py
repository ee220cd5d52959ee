"""Reading: entries come from the replica's group into its delay line, each once and without a gap."""

from __future__ import annotations

import logging
from collections.abc import Callable

from broker import snapshot
from broker.entry import Entry
from broker.errors import LogBehind, LogError, PositionLost
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.snapshot import Snapshot
from nodes.replica.acknowledger import Acknowledger
from nodes.replica.inbox import Inbox
from nodes.replica.metrics import ReplicaMetrics
from nodes.replica.store import ReplicaStore
from nodes.runtime.gate import PositionGate

BLOCK_MS = 5000
_BATCH = 500
_logger = logging.getLogger("lab.reader")


class Reader:
    """Reads own pending entries first, at the start and after every error, and then new ones.

    ``_last`` is the position of the newest entry in the line, or of the store where nothing waits: what comes has to
    follow it. What does not follow is either known already, or behind a gap; a gap is closed by having the log give
    everything after ``_last`` again, and where the log no longer holds that, by a snapshot of the primary's store.
    """

    def __init__(
        self,
        *,
        log: ReplicationLog,
        replica: str,
        inbox: Inbox,
        store: ReplicaStore,
        gate: PositionGate,
        acknowledger: Acknowledger,
        metrics: ReplicaMetrics,
    ) -> None:
        self._log = log
        self._group = log.group(replica)
        self._inbox = inbox
        self._store = store
        self._gate = gate
        self._acknowledger = acknowledger
        self._metrics = metrics
        self._last = gate.state.position
        self._recovered = False
        self._rewound = False
        self._look_at_pending = False
        self._resync_wanted = False
        self.resyncing = ""  # why, while a snapshot is being taken or waits until it is due
        self.read_again: Callable[[], bool] | None = None  # asked after each batch, where some are to come twice

    @property
    def joined(self) -> bool:
        """Whether it has its place in the log: what is pending is taken in, and new entries are being waited for."""
        return self._recovered

    @property
    def delivered(self) -> Position:
        """The newest position that it was given."""
        return self._last

    def look_at_pending(self) -> None:
        """With the next step, acknowledge what is pending and has been applied."""
        self._look_at_pending = True

    def want_resync(self) -> None:
        """With the next step, replace the store by a snapshot."""
        self._resync_wanted = True

    def step(self, block_ms: int = BLOCK_MS) -> None:
        """Take in one batch, waiting for it up to ``block_ms``. Raises ``broker.errors.LogError``."""
        try:
            self._read(block_ms)
        except LogError:
            # An answer may have been lost, and with it entries that count as delivered: look at what is pending.
            self._recovered = False
            raise

    def _read(self, block_ms: int) -> None:
        try:
            if not self._recovered or self._look_at_pending:
                self._look_at_pending = False
                self._recover()
                self._recovered = True
            if self._resync_wanted:
                self._resync_wanted = False
                self._resync("requested")
                return
            self._acknowledger.wait_for_room()
            room = self._inbox.wait_for_room()
            if room:
                before = self._last
                entries = self._group.read(min(room, _BATCH), block_ms)
                self._take(entries)
                if entries and self.read_again is not None and self.read_again():
                    self._group.rewind(before)
        except PositionLost:
            self._close_gap()

    def _recover(self) -> None:
        self._require_log_ahead()
        self._group.join(self._store_position())
        if self._is_of_another_history():
            self._resync("other_history")
        after = START
        while True:
            page = self._group.pending(after, _BATCH)
            if not page:
                break
            after = page[-1][0]
            for position, _ in page:
                self._metrics.redelivered()
                if position <= self._store_position():
                    self._metrics.duplicate()
            # What a trimmed entry held is lost, unless it is applied or waits here already.
            lost = [position for position, entry in page if entry is None and position > self._last]
            if lost and not self._superseded(lost[-1]):
                raise PositionLost(f"{lost[0]} was trimmed before this replica could read it")
            self._acknowledger.add([position for position, _ in page if position <= self._store_position()] + lost)
            self._take([entry for _, entry in page if entry is not None], count=False)
            self._inbox.wait_for_room()
        if self._group.last_delivered() > self._last:
            # Acknowledged and yet not there: a loss of power took it, or it was applied beyond the position.
            self._group.rewind(self._last)

    def _require_log_ahead(self) -> None:
        head = self._log.head().position
        if head < self._last:
            raise LogBehind(f"the log ends at {head}, before {self._last} of this replica: a new epoch is to begin")

    def _is_of_another_history(self) -> bool:
        """Whether the log has another change where the store is: it was lost, and begun anew while nobody knew more."""
        state = self._store.state()
        found = self._log.history.between(state.position, state.position, 1)
        return bool(found) and found[0].goes_on_from is None and found[0].write_id != state.write_id

    def _superseded(self, position: Position) -> bool:
        """Whether a reset has made this position void."""
        return position.epoch < self._log.head().position.epoch

    def _take(self, entries: list[Entry], *, count: bool = True) -> None:
        fresh: list[Entry] = []
        for entry in entries:
            if entry.position <= self._last:
                if count:
                    self._known(entry.position)
            elif entry.goes_on_from is not None:
                self._offer(fresh)
                fresh = []
                self._go_on(entry, entry.goes_on_from)
            elif self._last.is_followed_by(entry.position):
                fresh.append(entry)
                self._last = entry.position
            else:
                self._offer(fresh)
                raise PositionLost(f"{entry.position} does not follow {self._last}")
        self._offer(fresh)

    def _go_on(self, entry: Entry, after: Position) -> None:
        """Take over an epoch that goes on from ``after``, once everything up to there is applied."""
        if self._last < after:
            raise PositionLost(f"{entry.position} goes on from {after}, not from {self._last}")
        if self._last > after:
            self._resync("log_rolled_back")
        elif self._inbox.wait_until_empty():
            self._gate.advance(self._store.go_on(entry.position))
            self._acknowledger.add([entry.position])
            self._last = entry.position

    def _known(self, position: Position) -> None:
        """An entry came again: where it is applied, it only lacks its acknowledgement."""
        self._metrics.redelivered()
        if position <= self._store_position():
            self._metrics.duplicate()
            self._acknowledger.add([position])

    def _offer(self, entries: list[Entry]) -> None:
        if entries:
            self._rewound = False
            self._acknowledger.add(self._inbox.offer(entries))

    def _close_gap(self) -> None:
        if not self._rewound:
            _logger.warning("gap after %s: reading from there again", self._last)
            self._group.rewind(self._last)
            self._rewound = True
            self._recovered = True  # what is pending behind the gap comes again with the rest
        else:
            self._resync("gap")

    def _resync(self, reason: str) -> None:
        """Replace the store by a snapshot, once that is due; meanwhile reads are answered from the old store."""
        self.resyncing = reason
        try:
            self._replace(reason)
        finally:
            self.resyncing = ""

    def _replace(self, reason: str) -> None:
        taken = snapshot.take(self._log)
        _logger.warning("%s after %s: taking a snapshot of %s", reason, self._last, taken.position)
        if not self._inbox.hold(_stand_in(taken)):
            return
        self._inbox.clear()
        self._gate.replace(self._store.install(taken))
        self._metrics.resynced(reason)
        self._last = taken.position
        self._group.rewind(taken.position)
        self._rewound = False
        self._recovered = False

    def _store_position(self) -> Position:
        return self._gate.state.position


def _stand_in(taken: Snapshot) -> Entry:
    """The change at the snapshot's position: the snapshot may be shown when that is due."""
    return Entry(taken.position, "set" if taken.position.version else "epoch", "", "", taken.write_id, taken.at_us)
