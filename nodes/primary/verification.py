"""Whether the log has everything that anybody has seen of it: asked whenever the log server was started again."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable

from broker.events import Events
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Member, Registry
from nodes.http.peers import Ask, PeerError, Peers, Reply
from nodes.runtime.gate import PositionGate

_logger = logging.getLogger("lab.verification")
WAIT_SECONDS = 3.0
_PAUSE_SECONDS = 0.05


class Verification:
    """Opens the log for appends, once nobody is ahead of it.

    A log server that comes back may have lost the end of its log, to a loss of power, a failover, an older copy of
    its data. Were it appended to as it is, a position could come to name two changes. So each registered replica is
    asked for the newest position that it was given, for three seconds; where one is ahead of the log, or does not
    answer, the log goes on in a new epoch. Thread-safe.
    """

    def __init__(
        self,
        *,
        log: ReplicationLog,
        registered: Registry,
        events: Events,
        gate: PositionGate,
        peers: Peers,
        monotonic: Callable[[], float],
        pause: Callable[[float], object],
    ) -> None:
        """``gate`` knows the newest position that this primary has seen; ``pause`` waits between two rounds."""
        self._log = log
        self._registered = registered
        self._events = events
        self._gate = gate
        self._peers = peers
        self._monotonic = monotonic
        self._pause = pause
        self._lock = threading.Lock()

    def require(self) -> None:
        """Return when the log may be appended to. Raises ``broker.errors.LogError``."""
        with self._lock:
            if not self._log.is_verified():
                seen, silent = self._ask(self._registered.members())
                self._open(seen, silent)

    def compare(self, members: list[Member]) -> None:
        """Have the log go on in a new epoch where a replica's heartbeat or a foreign entry is ahead of it.

        Behind a foreign entry no position of the present epoch can be added. Raises ``LogError``.
        """
        ahead = max((member.position for member in members), default=START)
        with self._lock:
            foreign = self._log.foreign()
            if foreign is not None:
                self._open(max(ahead, foreign), [], f"the entry {foreign} is not of this lab")
            elif ahead > self._log.head().position:
                self._open(ahead, [])

    def _ask(self, members: list[Member]) -> tuple[Position, list[str]]:
        """The newest position that any replica was given, and who did not answer."""
        seen = [member.position for member in members]
        missing = {member.replica: Ask(f"{member.url}/applied", fields={"limit": "1"}) for member in members}
        deadline = self._monotonic() + WAIT_SECONDS
        while missing:
            for replica, reply in self._peers.ask_all(missing).items():
                if (delivered := _delivered(reply)) is not None:
                    seen.append(delivered)
                    del missing[replica]
            if missing and self._monotonic() >= deadline:
                break
            if missing:
                self._pause(_PAUSE_SECONDS)
        return max(seen, default=START), sorted(missing)

    def _open(self, seen: Position, silent: list[str], reason: str = "") -> None:
        known = max(seen, self._gate.state.position)
        before = self._log.position()
        cut = self._log.was_cut()
        after = self._log.open(uuid.uuid4().hex, known, in_doubt=bool(silent) or cut)
        if before is None:
            _logger.info("began the log at %s", after)
        elif after.epoch != before.epoch:
            if cut:
                reason = "the damaged end of its file was dropped"
            elif silent:
                reason = f"{', '.join(silent)} did not say what it had seen"
            else:
                reason = reason or f"{known} had been seen"
            _logger.warning("the log ended at %s and goes on at %s: %s", before, after, reason)
            self._events.publish("epoch", position=str(after), after=str(before), reason=reason)


def _delivered(reply: Reply | PeerError) -> Position | None:
    if isinstance(reply, PeerError) or reply.status != 200:
        return None
    try:
        return Position.parse(reply.body["delivered"])
    except (KeyError, TypeError, ValueError):
        return None
