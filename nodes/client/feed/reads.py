"""Reads in the feed: each read of a node that the client service performs on behalf of a caller."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from broker.clock import LogClock
from broker.position import Position
from nodes.client.feed.feed import Feed
from nodes.http.peers import Reply

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


class ReadItem(TypedDict):
    """``of``: the request that the read belongs to. ``key`` is ``None`` for a read of the node's version, ``level`` for
    a read at no level. ``behind``: the number of missing versions, ``None`` if unknown. ``at_ms``: when the node
    answered, by the log's clock.
    """

    of: str
    source: str
    key: str | None
    version: int
    level: str | None
    behind: int | None
    at_ms: float


class VersionRead(NamedTuple):
    """A node's answer to ``GET /version``."""

    of: str
    source: str
    reply: Reply
    behind: int | None


OnVersionRead = Callable[[VersionRead], None]


@dataclass(frozen=True)
class Reads:
    """Publishes reads while the feed has listeners."""

    feed: Feed
    clock: LogClock

    def of_version(self, read: VersionRead) -> None:
        if self.feed.listeners:
            at_ms = _answered_us(self.clock, read.reply) / 1000
            found = {"of": read.of, "source": read.source, "key": None, "level": None, "behind": read.behind}
            self.feed.publish("reads", {**found, "version": read.reply.body["version"], "at_ms": at_ms})

    def at_level(self, answer: Any, received_at: float) -> None:
        """Publish a read at a level (``ReadAnswer``), or each replica's answer to it if several were asked."""
        if self.feed.listeners:
            for item in level_items(answer, self.clock.at_us(received_at) / 1000):
                self.feed.publish("reads", item)


def level_items(answer: Any, at_ms: float) -> Iterator[ReadItem]:
    behind, position = answer["behind_versions"], Position.parse(answer["position"])
    asked = answer.get("asked") or {answer["source"]: answer}
    for source, one in asked.items():
        own, read_at = Position.parse(one["position"]), one.get("read_at")
        # The answer was compared with the head of the log, which is ``behind`` versions after the answer's position.
        comparable = behind is not None and own.epoch == position.epoch
        yield {
            "of": "read",
            "source": source,
            "key": answer["key"],
            "version": one["version"],
            "level": answer["level"],
            "behind": max(0, position.version + behind - own.version) if comparable else None,
            "at_ms": at_ms if read_at is None else _us(read_at) / 1000,
        }


def _answered_us(clock: LogClock, reply: Reply) -> int:
    """The time of the answer as the node reports it, unless its clock is outside the request as seen from here."""
    earliest_us, latest_us = clock.at_us(reply.sent_at), clock.at_us(reply.received_at)
    written_at, age_ms = reply.body.get("write_timestamp"), reply.body.get("data_age_ms")
    if written_at is None or age_ms is None:  # nothing was written, so nothing has an age
        return latest_us
    own_us: int = _us(written_at) + round(age_ms * 1000)
    return min(max(own_us, earliest_us), latest_us)


def _us(timestamp: str) -> int:
    return int((datetime.fromisoformat(timestamp) - _EPOCH) / timedelta(microseconds=1))
