"""The sources of the feed: the log, each replica, and the lab's events, each followed without polling.

State that nothing announces is polled once a second: each replica's position and pending entries, unreachable nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from broker.clock import LogClock
from broker.entry import Entry
from broker.log import ReplicationLog
from broker.position import Position
from broker.registry import Events
from nodes.client.feed.feed import INTERVAL_SECONDS, Feed
from nodes.client.reading import ReadAnswer
from nodes.http.peers import Ask, PeerError, Peers
from nodes.runtime.background import Background

WAIT_MS = 4000
_STATE_SECONDS = 1.0
_IDLE_SECONDS = 0.2
_PREVIEW = 120  # characters of a value
_PAGE = 1000
# A step follows a source from a cursor (None: from now on), and returns the next cursor and how many seconds to pause.
Step = Callable[[Any], tuple[Any, float]]


class Sources:
    """The threads that fill a feed while a client listens, and rest otherwise."""

    def __init__(
        self, feed: Feed, *, log: ReplicationLog, events: Events, peers: Peers, primary_url: str, clock: LogClock
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._log = log
        self._events = events
        self._peers = peers
        self._primary_url = primary_url
        self._followed: dict[tuple[str, str], Background] = {}
        self._flusher = Background("feed", self._flush)
        self._threads = [
            self._flusher,
            self._while_listened("feed-log", self._follow_log),
            self._while_listened("feed-events", self._follow_events),
            self._while_listened("feed-state", self._observe),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._feed.close()
        for thread in [*self._threads, *self._followed.values()]:
            thread.stop()

    def _while_listened(self, name: str, step: Step) -> Background:
        """A thread that takes steps while a client listens, and otherwise forgets its cursor."""
        cursor = None

        def run() -> None:
            nonlocal cursor
            cursor, pause_seconds = step(cursor) if self._feed.listeners else (None, _IDLE_SECONDS)
            thread.pause(pause_seconds)

        thread = Background(name, run)
        return thread

    def _flush(self) -> None:
        self._feed.flush()
        self._flusher.pause(INTERVAL_SECONDS)

    def _follow_log(self, at: Position | None) -> tuple[Position, float]:
        at = at or self._log.head().position
        for entry in self._log.history.follow(at, _PAGE, WAIT_MS):
            at = entry.position
            self._feed.publish("writes", _write(entry))
        return at, 0

    def _follow_events(self, last: str | None) -> tuple[str, float]:
        last = last or self._events.last_id()
        for event in self._events.after(last, WAIT_MS):
            last = event.id
            self._feed.publish("events", {"at_ms": int(event.id.partition("-")[0]), **event.fields})
        return last, 0

    def _observe(self, _: None) -> tuple[None, float]:
        self._clock.measure()
        reply = self._peers.attempt(Ask(f"{self._primary_url}/replicas"))
        if isinstance(reply, PeerError):
            self._feed.publish("unreachable", {"node": "primary", "detail": str(reply)})
        elif reply.status == 200:
            for replica in reply.body["replicas"]:
                self._feed.publish("state", replica)
            self._follow({(replica["replica_id"], replica["url"]) for replica in reply.body["replicas"]})
        return None, _STATE_SECONDS

    def _follow(self, replicas: set[tuple[str, str]]) -> None:
        """Follow each of these replicas at its URL, and no other."""
        for gone in self._followed.keys() - replicas:
            self._followed.pop(gone).stop()
        for replica, url in replicas - self._followed.keys():
            thread = self._while_listened(
                f"feed-{replica}", partial(follow_replica, self._feed, self._peers, replica, url)
            )
            self._followed[replica, url] = thread
            thread.start()


def follow_replica(feed: Feed, peers: Peers, replica: str, url: str, cursor: str | None) -> tuple[str | None, float]:
    """Wait for the entries that a replica applies next; see ``Step``."""
    wait = {"cursor": cursor or "", "timeout_ms": str(WAIT_MS), "limit": str(_PAGE)}
    reply = peers.attempt(Ask(f"{url}/applied", fields=wait if cursor else {"limit": "1"}, wait_ms=WAIT_MS))
    if isinstance(reply, PeerError):
        feed.publish("unreachable", {"node": replica, "detail": str(reply)})
        return cursor, _STATE_SECONDS
    if reply.status != 200:
        return cursor, _STATE_SECONDS
    for applied in reply.body["applied"] if cursor else ():
        feed.publish("applied", _applied(replica, applied))
    return reply.body["cursor"], 0


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
    """A read in the feed. ``behind`` counts the versions that it lacked, ``None`` if unknown."""
    return {
        "source": answer["source"],
        "key": answer["key"],
        "version": answer["version"],
        "behind": answer["behind_versions"],
        "level": answer["level"],
        "at_ms": at_ms,
    }
