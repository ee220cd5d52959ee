"""Upkeep of the log: verify that it still has every entry that was seen, and keep it within bounds."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterable

from broker.errors import LogMissing
from broker.history import Memory
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Member
from nodes.http.peers import Ask, PeerError, Reply
from nodes.primary.parts import Parts
from nodes.runtime.config import PrimaryConfig

_logger = logging.getLogger("lab.upkeep")
WAIT_SECONDS = 3.0
_PAUSE_SECONDS = 0.05
_LOST_EPOCHS_MAX = 9  # whose starts a log can have lost, and which only a replica that does not answer has seen
_SERVER_SHARE = 0.8  # of the log server's memory; the rest is for entries that arrive before the next check


class Verification:
    """Opens the log for appends once no replica is known to be ahead of it.

    A restarted log server may have lost the end of its log; with plain appends, a position could identify two changes.
    So the primary asks each replica for the newest position delivered to it, for up to three seconds if that can avoid
    a new epoch. If a replica is ahead or does not respond, the log continues in a new epoch. Thread-safe.

    A primary that was just started asks also on a verified log, if servers take over from each other: this one can be a
    former master that has been left for a later epoch, and was never demoted.
    """

    def __init__(self, parts: Parts, monotonic: Callable[[], float], pause: Callable[[float], object]) -> None:
        self._parts, self._log = parts, parts.log
        self._monotonic, self._pause = monotonic, pause
        self._lock = threading.Lock()
        self._is_new = True  # and knows nothing of a later epoch, or of one that the log has lost

    def require(self) -> None:
        """Return once appends are allowed. Raises ``broker.errors.LogError``."""
        with self._lock:
            if not self._log.is_verified():
                seen, silent = self._ask(self._parts.registered.members())
                self._open(seen, silent)
            elif self._is_new and self._parts.link.address.moves:
                seen, _ = self._ask(self._parts.registered.members())
                self._open(seen, [])
            self._is_new = False

    def compare(self, members: list[Member]) -> None:
        """Continue the log in a new epoch if a replica, this primary or a foreign entry is ahead of it.

        So it is if a former master that was never demoted is master again. Raises ``LogError``.
        """
        ahead = max((self._parts.gate.state.position, *(member.position for member in members)))
        with self._lock:
            if self._log.history.foreign() is not None or ahead > self._log.head().position:
                self._open(ahead, [])

    def _ask(self, members: list[Member]) -> tuple[Position, list[str]]:
        seen = [member.position for member in members]
        missing = {member.replica: Ask(f"{member.url}/applied", fields={"limit": "1"}) for member in members}
        # If another server can take over, a new epoch starts anyway.
        moves = self._parts.link.address.moves
        deadline = self._monotonic() + (0 if moves else WAIT_SECONDS)
        while missing:
            for replica, reply in self._parts.peers.ask_all(missing).items():
                if (delivered := _delivered(reply)) is not None:
                    seen.append(delivered)
                    del missing[replica]
            if not missing or self._monotonic() >= deadline:
                break
            self._pause(_PAUSE_SECONDS)
        return max(seen, default=START), sorted(missing)

    def _open(self, seen: Position, silent: list[str]) -> None:
        before: Position | None
        foreign: Position | None
        try:
            before, foreign = self._log.head().position, self._log.history.foreign()
        except LogMissing:
            before = foreign = None
        known = max(seen, self._parts.gate.state.position, foreign or START)
        if silent and self._is_new:
            known = Position(max(known, before or START).epoch + _LOST_EPOCHS_MAX, 0)
        cut = self._log.history.was_cut()
        moves = self._parts.link.address.moves
        after = self._log.open(uuid.uuid4().hex, known, in_doubt=bool(silent) or cut, moves=moves)
        if before is None:
            _logger.info("started the log at %s", after)
        elif after.epoch != before.epoch:
            if cut:
                reason = "the damaged end of its file was dropped"
            elif silent:
                reason = f"{', '.join(silent)} did not report what it had seen"
            elif foreign is not None:
                reason = f"the entry {foreign} was not written by this lab"
            elif known > before:
                reason = f"{known} had been seen"
            else:
                reason = "the log server was replaced, and the writes before that may not all have reached this one"
            _logger.warning("the log ended at %s and continues at %s: %s", before, after, reason)
            self._parts.events.publish("epoch", position=str(after), after=str(before), reason=reason)


class Retention:
    """Keeps the log within bounds in entries and in bytes. Methods raise ``broker.errors.LogError``. Thread-safe."""

    def __init__(self, log: ReplicationLog, config: PrimaryConfig) -> None:
        self._log, self._config = log, config
        self._lock = threading.Lock()
        self._memory: Memory | None = None

    def trim(self, live: Iterable[Member]) -> None:
        """Drop entries that every live replica has applied, except the newest, and all beyond the hard bounds."""
        head = self._log.head().position
        slowest = min((member.position for member in live), default=START)
        applied = slowest.version if slowest.epoch == head.epoch else 0
        through = max(min(applied, head.version - self._config.log_keep), head.version - self._config.log_max)
        if through > 0:
            self._log.trim(Position(head.epoch, through))
        self.shrink()

    def shrink(self) -> None:
        with self._lock:
            self._memory = self._log.shrink(self.bound_bytes)

    def usage(self) -> tuple[int, int] | None:
        """The log's size in bytes at the last check, and its limit."""
        memory = self._memory
        return None if memory is None else (memory.log_bytes, self.bound_bytes(memory))

    def bound_bytes(self, memory: Memory) -> int:
        """Return the log's limit in bytes: as configured, but no more than the server's memory allows."""
        if memory.max_bytes == 0:
            return self._config.log_max_bytes
        others_bytes = memory.used_bytes - memory.log_bytes
        return min(self._config.log_max_bytes, max(0, round(_SERVER_SHARE * memory.max_bytes) - others_bytes))


def _delivered(reply: Reply | PeerError) -> Position | None:
    if isinstance(reply, PeerError) or reply.status != 200:
        return None
    try:
        return Position.parse(reply.body["delivered"])
    except (KeyError, TypeError, ValueError):
        return None
