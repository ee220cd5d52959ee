"""Periodic tasks of a replica: heartbeats, which also fetch its settings, and audits of its content."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.delay.models import Fixed
from broker.registry import Member, Settings
from nodes.replica.parts import HEARTBEAT_MS, Parts

_logger = logging.getLogger("lab.audit")
AUDIT_SECONDS = 5.0
_DUTY = 50  # the pause is this many times the duration of a comparison, which reads the whole content


@dataclass
class Membership:
    """Registers the replica once a second, and applies its settings as soon as an event announces a change.

    ``registered`` is set once the replica is registered and its settings are active.
    """

    parts: Parts
    describe: Callable[[], Member]  # returns the heartbeat
    apply: Callable[[Settings], None]  # makes settings active
    registered: threading.Event = field(default_factory=threading.Event, init=False)
    _last_event: str | None = field(default=None, init=False)
    _settings: Settings | None = field(default=None, init=False)

    def step(self, block_ms: int = HEARTBEAT_MS) -> None:
        """Send a heartbeat, then wait for an event or the next one. Raises ``broker.errors.LogError``."""
        parts = self.parts
        if self._last_event is None:  # before the settings are read, so that no change is missed
            self._last_event = parts.events.last_id()
        parts.clock.measure()  # before the first settings: once they are active, entries can be due
        parts.inbox.clock_changed()
        parts.acknowledger.clock_changed()
        member = self.describe()
        if not self.registered.is_set():
            parts.registry.require_free(member)
        defaults = Settings(Fixed(parts.config.delay_ms), Fixed(parts.config.ack_delay_ms))
        settings, joined = parts.registry.heartbeat(member, defaults)
        if settings != self._settings:
            self._settings = settings
            self.apply(settings)
        self.registered.set()
        if joined:
            parts.events.publish("joined", replica=member.replica)
        for event in parts.events.after(self._last_event, block_ms):
            self._last_event = event.id


@dataclass
class Audit:
    """Compares digests with the primary's, because versions and positions do not reveal corruption.

    This is only possible at the primary's position, which the replica reaches once writes pause.
    """

    parts: Parts
    monotonic: Callable[[], float] = field(default_factory=lambda: time.monotonic)
    diverged: bool = field(default=False, init=False)

    def step(self) -> float:
        """Compare if possible; return the seconds to pause. Raises ``LogError`` or ``StoreError``."""
        head, store = self.parts.log.head(), self.parts.store
        if store.state().position != head.position:
            return AUDIT_SECONDS
        started = self.monotonic()
        state, keys, digest = store.digest()
        took = self.monotonic() - started
        if state.position == head.position:
            diverged = (keys, digest) != (head.keys, head.digest)
            if diverged and not self.diverged:
                _logger.error("content at %s differs from the primary's: digest %s, not %s",
                              state.position, digest, head.digest)  # fmt: skip
            self.diverged = diverged
            self.parts.metrics.compared(diverged=diverged)
        return max(AUDIT_SECONDS, _DUTY * took)
