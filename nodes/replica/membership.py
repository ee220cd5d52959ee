"""Being a replica of this lab: heartbeats, live settings, and the log's clock."""

from __future__ import annotations

import threading
from collections.abc import Callable

from broker.clock import LogClock
from broker.events import Events
from broker.registry import Member, Registry, Settings

HEARTBEAT_MS = 1000


class Membership:
    """Registers the replica once a second, and puts its settings in force as soon as an event tells of a change."""

    def __init__(
        self,
        *,
        registered: Registry,
        events: Events,
        clock: LogClock,
        defaults: Settings,
        describe: Callable[[], Member],
        apply: Callable[[Settings], None],
    ) -> None:
        """``describe`` gives the heartbeat, ``apply`` puts settings in force."""
        self._registered = registered
        self._events = events
        self._clock = clock
        self._defaults = defaults
        self._describe = describe
        self._apply = apply
        self._last_event: str | None = None
        self._settings: Settings | None = None
        self._is_registered = threading.Event()

    @property
    def registered(self) -> bool:
        """Whether the replica is registered and has its settings."""
        return self._is_registered.is_set()

    def wait_until_registered(self, timeout_seconds: float) -> bool:
        """Wait until it is, or the time is up; whether it is."""
        return self._is_registered.wait(timeout_seconds)

    def step(self, block_ms: int = HEARTBEAT_MS) -> None:
        """Beat, then wait for an event or the next beat. Raises ``broker.errors.LogError``."""
        if self._last_event is None:  # before the settings are read, so that no change falls in between
            self._last_event = self._events.last_id()
        self._clock.measure()  # before the first settings: with those in force, entries may be due
        member = self._describe()
        if not self.registered:
            self._registered.require_free(member)
        settings, joined = self._registered.heartbeat(member, self._defaults)
        if settings != self._settings:
            self._settings = settings
            self._apply(settings)
        self._is_registered.set()
        if joined:
            self._events.publish("joined", replica=member.replica)
        for event in self._events.after(self._last_event, block_ms):
            self._last_event = event.id
