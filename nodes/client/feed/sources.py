"""The sources of the feed: the log, each replica, and the lab's events, each followed without polling.

State that nothing announces is polled: ten times a second, what is delivered to each group; once a second, each
replica's position and pending entries, unreachable nodes.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, get_args

from broker.clock import LogClock
from broker.entry import Entry
from broker.history import Delivered
from broker.log import ReplicationLog
from broker.position import Position
from broker.registry import Events
from nodes.client.feed.feed import INTERVAL_SECONDS, Before, Feed
from nodes.http.peers import Ask, NotJson, PeerError, Peers
from nodes.runtime.background import Background

WAIT_MS = 4000
_STATE_SECONDS = 1.0
_IDLE_SECONDS = 0.2
_PREVIEW = 120  # characters of a value
_PAGE = 1000
_NEWEST = 50  # entries that a new listener gets
_GATHER_SECONDS = INTERVAL_SECONDS / 2  # otherwise each entry would cost a request to each replica
Progress = Literal["applied", "acknowledged"]  # what a replica does with an entry, and the path that reports it
PROGRESS: tuple[Progress, ...] = get_args(Progress)
# A step follows a source from a cursor (None: from now on), and returns the next cursor and how many seconds to pause.
Step = Callable[[Any], tuple[Any, float]]


@dataclass
class Sources:
    feed: Feed
    log: ReplicationLog
    events: Events
    peers: Peers
    primary_url: str
    clock: LogClock

    def __post_init__(self) -> None:
        self._newest: deque[dict[str, Any]] = deque(maxlen=_NEWEST)
        self._followed: dict[tuple[str, str, Progress], Background] = {}
        self._flusher = Background("feed", self._flush)
        self._threads = [
            self._flusher,
            self._while_listened("feed-log", self._follow_log),
            self._while_listened("feed-events", self._follow_events),
            self._while_listened("feed-groups", self._follow_groups),
            self._while_listened("feed-state", self._observe),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.feed.close()
        for thread in [*self._threads, *self._followed.values()]:
            thread.stop()

    def before(self) -> Before:
        """What a listener cannot know from the events after it: the newest entries of the log."""
        return {"earlier": list(self._newest)}

    def _while_listened(self, name: str, step: Step) -> Background:
        cursor = None

        def run() -> None:
            nonlocal cursor
            cursor, pause_seconds = step(cursor) if self.feed.listeners else (None, _IDLE_SECONDS)
            thread.pause(pause_seconds)

        thread = Background(name, run)
        return thread

    def _flush(self) -> None:
        self.feed.flush()
        self._flusher.pause(INTERVAL_SECONDS)

    def _follow_log(self, at: Position | None) -> tuple[Position, float]:
        if at is None:
            return self._start_in_log(), 0
        found = self.log.history.follow(at, _PAGE, WAIT_MS)
        for entry in found:
            at = entry.position
            self._publish("writes", entry)
        return at, _pause_seconds(len(found))

    def _start_in_log(self) -> Position:
        self._newest.clear()
        found = self.log.history.newest(_NEWEST)
        for entry in found:
            self._publish("earlier", entry)
        return found[-1].position if found else self.log.head().position

    def _publish(self, kind: str, entry: Entry) -> None:
        self._newest.append(write_item(entry))
        self.feed.publish(kind, self._newest[-1])

    def _follow_groups(self, last: Delivered | None) -> tuple[Delivered, float]:
        """Publish what is delivered to each group, when it has changed and once a second.

        No command of the log server waits for a change.
        """
        found = self.log.history.delivered()
        if last and found.positions == last.positions and found.at_us - last.at_us < _STATE_SECONDS * 1e6:
            return last, INTERVAL_SECONDS
        for replica, position in found.positions.items():
            item = {"replica": replica, "delivered": str(position), "at_ms": found.at_us / 1000}
            self.feed.publish("groups", item)
        return found, INTERVAL_SECONDS

    def _follow_events(self, last: str | None) -> tuple[str, float]:
        last = last or self.events.last_id()
        for event in self.events.after(last, WAIT_MS):
            last = event.id
            self.feed.publish("events", {"at_ms": int(event.id.partition("-")[0]), **event.fields})
        return last, 0

    def _observe(self, _: None) -> tuple[None, float]:
        self.clock.measure()
        reply = self.peers.attempt(Ask(f"{self.primary_url}/replicas"))
        if isinstance(reply, PeerError):
            self.feed.publish("unreachable", {"node": "primary", "detail": str(reply)})
        elif reply.status == 200:
            for replica in reply.body["replicas"]:
                self.feed.publish("state", replica)
            self._follow({(replica["replica_id"], replica["url"]) for replica in reply.body["replicas"]})
        return None, _STATE_SECONDS

    def _follow(self, replicas: set[tuple[str, str]]) -> None:
        wanted = {(replica, url, kind) for replica, url in replicas for kind in PROGRESS}
        for gone in self._followed.keys() - wanted:
            self._followed.pop(gone).stop()
        for replica, url, kind in wanted - self._followed.keys():
            step = partial(follow_replica, self.feed, self.peers, replica, url, kind)
            thread = self._followed[replica, url, kind] = self._while_listened(f"feed-{replica}-{kind}", step)
            thread.start()


def follow_replica(
    feed: Feed, peers: Peers, replica: str, url: str, kind: Progress, cursor: str | None
) -> tuple[str | None, float]:
    """Wait for the entries that a replica applies or acknowledges next; see ``Step``."""
    wait = {"cursor": cursor or "", "timeout_ms": str(WAIT_MS), "limit": str(_PAGE)}
    reply = peers.attempt(Ask(f"{url}/{kind}", fields=wait if cursor else {"limit": "1"}, wait_ms=WAIT_MS))
    if isinstance(reply, PeerError) and not isinstance(reply, NotJson):
        feed.publish("unreachable", {"node": replica, "detail": str(reply)})
    if isinstance(reply, PeerError) or reply.status != 200:
        return cursor, _STATE_SECONDS
    found = reply.body[kind] if cursor else []
    for entry in found:
        item = {name: entry[name] for name in ("position", f"{kind}_after_ms", "lateness_ms")}
        at_ms = datetime.fromisoformat(entry[f"{kind}_at"]).timestamp() * 1000
        feed.publish(kind, {"replica": replica, f"{kind}_ms": at_ms, **item})
    return reply.body["cursor"], _pause_seconds(len(found))


def _pause_seconds(count: int) -> float:
    """The pause after this many entries: none if there were none, or if there can be more."""
    return _GATHER_SECONDS if 0 < count < _PAGE else 0


def write_item(entry: Entry) -> dict[str, Any]:
    preview = entry.value[:_PREVIEW]
    return {
        "position": str(entry.position),
        "op": entry.op,
        "key": entry.key,
        "value": preview if len(preview) == len(entry.value) else f"{preview}…",
        "value_bytes": len(entry.value),
        "at_ms": entry.at_us / 1000,
        "write_id": entry.write_id,
        "traceparent": entry.traceparent,
    }
