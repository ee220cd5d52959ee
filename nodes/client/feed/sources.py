"""Where the feed comes from: the log, each replica, and the lab's events, each waited for and none polled.

Only what nobody tells of is asked for, once a second: how far the log has every replica, what is pending, who is away.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from broker.clock import LogClock
from broker.entry import Entry
from broker.events import Events
from broker.log import ReplicationLog
from broker.position import Position
from nodes.client.feed.feed import INTERVAL_SECONDS, Feed
from nodes.client.levels import ReadAnswer
from nodes.peers import Ask, PeerError, Peers
from nodes.worker import Worker

WAIT_MS = 4000
_STATE_SECONDS = 1.0
_IDLE_SECONDS = 0.2
_PREVIEW = 120
_PAGE = 1000


class Sources:
    """The threads that fill a feed while somebody listens, and rest while nobody does."""

    def __init__(
        self, feed: Feed, *, log: ReplicationLog, events: Events, peers: Peers, primary_url: str, clock: LogClock
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._log = log
        self._events = events
        self._peers = peers
        self._primary_url = primary_url
        self._at: Position | None = None
        self._last_event: str | None = None
        self._cursors: dict[str, str] = {}
        self._replicas: dict[str, Worker] = {}
        self._workers = {
            "feed": Worker("feed", self._flush),
            "log": self._while_listened("feed-log", self._follow_log, self._forget_log),
            "events": self._while_listened("feed-events", self._follow_events, self._forget_events),
            "state": self._while_listened("feed-state", self._observe, lambda: None),
        }

    def start(self) -> None:
        """Start the threads."""
        for worker in self._workers.values():
            worker.start()

    def stop(self) -> None:
        """End them, and every listening."""
        self._feed.close()
        for worker in [*self._workers.values(), *self._replicas.values()]:
            worker.stop()

    def _while_listened(self, name: str, step: Callable[[], None], forget: Callable[[], None]) -> Worker:
        """A thread that takes steps while somebody listens, and otherwise forgets where it was."""

        def run() -> None:
            if self._feed.listeners:
                step()
            else:
                forget()
                worker.pause(_IDLE_SECONDS)

        worker = Worker(name, run)
        return worker

    def _flush(self) -> None:
        self._feed.flush()
        self._workers["feed"].pause(INTERVAL_SECONDS)

    def _follow_log(self) -> None:
        if self._at is None:
            self._at = self._log.head().position
        for entry in self._log.follow(self._at, _PAGE, WAIT_MS):
            self._at = entry.position
            self._feed.publish("writes", _write(entry))

    def _forget_log(self) -> None:
        self._at = None

    def _follow_events(self) -> None:
        if self._last_event is None:
            self._last_event = self._events.last_id()
        for event in self._events.after(self._last_event, WAIT_MS):
            self._last_event = event.id
            self._feed.publish("events", {"at_ms": int(event.id.partition("-")[0]), **event.fields})

    def _forget_events(self) -> None:
        self._last_event = None

    def _observe(self) -> None:
        self._clock.measure()
        try:
            reply = self._peers.ask(Ask(f"{self._primary_url}/replicas"))
        except PeerError as error:
            self._feed.publish("unreachable", {"node": "primary", "detail": str(error)})
        else:
            for replica in reply.body.get("replicas", []):
                self._feed.publish("state", replica)
                self._watch(replica["replica_id"], replica["url"])
        self._workers["state"].pause(_STATE_SECONDS)

    def _watch(self, replica: str, url: str) -> None:
        """See to it that somebody listens to this replica."""
        if replica not in self._replicas:
            worker = self._while_listened(
                f"feed-{replica}",
                lambda: self._follow_replica(replica, url),
                lambda: self._forget_replica(replica),
            )
            self._replicas[replica] = worker
            worker.start()

    def _follow_replica(self, replica: str, url: str) -> None:
        cursor = self._cursors.get(replica)
        fields = {"cursor": cursor, "timeout_ms": str(WAIT_MS), "limit": str(_PAGE)} if cursor else {"limit": "1"}
        try:
            reply = self._peers.ask(Ask(f"{url}/applied", fields=fields, wait_ms=WAIT_MS))
        except PeerError as error:
            self._feed.publish("unreachable", {"node": replica, "detail": str(error)})
            self._replicas[replica].pause(_STATE_SECONDS)
            return
        if cursor:
            for applied in reply.body["applied"]:
                self._feed.publish("applied", _applied(replica, applied))
        self._cursors[replica] = reply.body["cursor"]

    def _forget_replica(self, replica: str) -> None:
        self._cursors.pop(replica, None)


def _write(entry: Entry) -> dict[str, Any]:
    preview = entry.value[:_PREVIEW]
    return {
        "position": str(entry.position),
        "op": entry.op,
        "key": entry.key,
        "value": preview if len(preview) == len(entry.value) else f"{preview}…",
        "value_bytes": len(entry.value),
        "at_ms": entry.at_us / 1000,
    }


def _applied(replica: str, applied: dict[str, Any]) -> dict[str, Any]:
    return {
        "replica": replica,
        "position": applied["position"],
        "applied_ms": datetime.fromisoformat(applied["applied_at"]).timestamp() * 1000,
        "applied_after_ms": applied["applied_after_ms"],
        "lateness_ms": applied["lateness_ms"],
    }


def read_item(answer: ReadAnswer, at_ms: float) -> dict[str, Any]:
    """A read as the feed tells of it: ``behind`` counts the versions that it lacked, ``None`` where nobody knows."""
    return {
        "source": answer["source"],
        "key": answer["key"],
        "version": answer["version"],
        "behind": answer["behind_versions"],
        "level": answer["level"],
        "at_ms": at_ms,
    }
