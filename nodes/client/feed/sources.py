"""Where the feed comes from: the log, each replica, and the lab's events, each waited for and none polled.

Only what nobody tells of is asked for, once a second: how far the log has every replica, what is pending, who is away.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from broker.clock import LogClock
from broker.entry import Entry
from broker.log import ReplicationLog
from broker.position import Position
from broker.registry import Events
from nodes.client.feed.feed import INTERVAL_SECONDS, Feed
from nodes.client.levels import ReadAnswer
from nodes.http.peers import Ask, PeerError, Peers
from nodes.runtime.background import Background

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
        self._watched: dict[str, str] = {}
        self._replicas: dict[str, Background] = {}
        self._workers = {
            "feed": Background("feed", self._flush),
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

    def _while_listened(self, name: str, step: Callable[[], float], forget: Callable[[], None]) -> Background:
        """A thread that takes steps while somebody listens, and otherwise forgets where it was.

        A step returns how many seconds to pause after it.
        """

        def run() -> None:
            if self._feed.listeners:
                worker.pause(step())
            else:
                forget()
                worker.pause(_IDLE_SECONDS)

        worker = Background(name, run)
        return worker

    def _flush(self) -> None:
        self._feed.flush()
        self._workers["feed"].pause(INTERVAL_SECONDS)

    def _follow_log(self) -> float:
        if self._at is None:
            self._at = self._log.head().position
        for entry in self._log.history.follow(self._at, _PAGE, WAIT_MS):
            self._at = entry.position
            self._feed.publish("writes", _write(entry))
        return 0

    def _forget_log(self) -> None:
        self._at = None

    def _follow_events(self) -> float:
        if self._last_event is None:
            self._last_event = self._events.last_id()
        for event in self._events.after(self._last_event, WAIT_MS):
            self._last_event = event.id
            self._feed.publish("events", {"at_ms": int(event.id.partition("-")[0]), **event.fields})
        return 0

    def _forget_events(self) -> None:
        self._last_event = None

    def _observe(self) -> float:
        self._clock.measure()
        try:
            reply = self._peers.ask(Ask(f"{self._primary_url}/replicas"))
        except PeerError as error:
            self._feed.publish("unreachable", {"node": "primary", "detail": str(error)})
        else:
            registered = reply.body.get("replicas", [])
            for replica in registered:
                self._feed.publish("state", replica)
            if reply.status == 200:
                self._watch({replica["replica_id"]: replica["url"] for replica in registered})
        return _STATE_SECONDS

    def _watch(self, urls: dict[str, str]) -> None:
        """See to it that somebody listens to each of these replicas, where it is, and to no other."""
        for gone in self._watched.items() - urls.items():
            self._replicas.pop(gone[0]).stop()
        for replica, url in urls.items() - self._watched.items():
            follower = Follower(self._feed, self._peers, replica, url)
            self._replicas[replica] = self._while_listened(f"feed-{replica}", follower.step, follower.forget)
            self._replicas[replica].start()
        self._watched = urls


class Follower:
    """Follows what one replica applies."""

    def __init__(self, feed: Feed, peers: Peers, replica: str, url: str) -> None:
        self._feed = feed
        self._peers = peers
        self._replica = replica
        self._url = f"{url}/applied"
        self._cursor = ""

    def step(self) -> float:
        """Wait for what it applies next; how many seconds to pause then."""
        wait = {"cursor": self._cursor, "timeout_ms": str(WAIT_MS), "limit": str(_PAGE)}
        fields = wait if self._cursor else {"limit": "1"}
        try:
            reply = self._peers.ask(Ask(self._url, fields=fields, wait_ms=WAIT_MS))
        except PeerError as error:
            self._feed.publish("unreachable", {"node": self._replica, "detail": str(error)})
            return _STATE_SECONDS
        if reply.status != 200:
            return _STATE_SECONDS
        if self._cursor:
            for applied in reply.body["applied"]:
                self._feed.publish("applied", _applied(self._replica, applied))
        self._cursor = reply.body["cursor"]
        return 0

    def forget(self) -> None:
        """Nobody listens any more."""
        self._cursor = ""


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
