"""Reads in the feed: which node was read, what it lacked, and when it answered."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.clock import LogClock
from nodes.client.client import Client
from nodes.client.comparison import CompareQuery, Comparison
from nodes.client.directory import Directory
from nodes.client.feed.feed import Feed
from nodes.client.feed.reads import Reads, VersionRead
from nodes.client.metrics import ClientMetrics
from nodes.http.peers import Reply
from nodes.http.writing import WriteBody
from nodes.runtime.tracing import Tracing
from tests.support.peers import GONE, PRIMARY, StubPeers, at, replicas

AT_MS = 1767225600000  # 2026-01-01, by the log's clock, when the monotonic clock is at 0
AGES = {"write_timestamp": "2026-01-01T00:00:10.200000Z", "data_age_ms": 30.5}


class Kept(Feed):
    """A feed with a listener."""

    def __init__(self) -> None:
        super().__init__(lambda: 42.0)
        self.listen(None)

    def reads(self) -> list[dict[str, Any]]:
        return self._batch.get("reads", [])


def reads_of(feed: Feed) -> Reads:
    clock = LogClock(lambda: AT_MS * 1000, lambda: 0, lambda: AT_MS * 10**6)
    clock.measure()
    return Reads(feed, clock)


def make(feed: Feed, **answers: Any) -> tuple[Client, Comparison]:
    peers = StubPeers(**{"primary/replicas": replicas("r1", "r2"), **answers})
    directory, read = Directory(peers, PRIMARY), reads_of(feed).of_version
    client = Client(PRIMARY, peers, directory, ClientMetrics(CollectorRegistry()), Tracing(), read)
    return client, Comparison(peers, directory, PRIMARY, (), read)


def item(of: str, source: str, version: int, behind: int | None, at_ms: float = AT_MS + 10_250) -> dict[str, Any]:
    found = {"of": of, "source": source, "key": None, "version": version, "level": None}
    return {**found, "behind": behind, "at_ms": at_ms}


def test_each_read_right_after_a_write_is_published_with_the_versions_that_it_lacks() -> None:
    written = {"version": 7, "position": "1-7", "write_id": "w"}
    feed = Kept()
    client, _ = make(feed, **{"primary/data": written, "r1/version": at(4), "r2/version": at(9)})
    client.write_and_read(WriteBody(key="k", value=1), "w")
    assert sorted(feed.reads(), key=lambda read: str(read["source"])) == [
        item("write-and-read", "r1", 4, 3),
        item("write-and-read", "r2", 9, 0),
    ]


def test_a_replica_that_does_not_answer_was_not_read() -> None:
    feed = Kept()
    client, comparison = make(
        feed, **{"primary/data": at(7), "r1/version": GONE, "r2/version": (503, {}), "primary/version": GONE}
    )
    client.write_and_read(WriteBody(key="k", value=1), "w")
    comparison.compare(CompareQuery())
    assert feed.reads() == []


def test_each_nodes_version_is_published_with_the_versions_that_it_is_behind_the_primary() -> None:
    feed = Kept()
    answers = {"primary/version": at(7), "r1/version": at(5), "r2/version": at(3, epoch=0)}
    make(feed, **answers)[1].compare(CompareQuery())
    assert feed.reads() == [
        item("read-compare", "primary", 7, 0),
        item("read-compare", "r1", 5, 2),
        item("read-compare", "r2", 3, 7),
    ]


def test_without_the_primary_what_a_read_lacks_is_unknown() -> None:
    feed = Kept()
    make(feed, **{"primary/version": GONE, "r1/version": at(5), "r2/version": at(7)})[1].compare(CompareQuery())
    assert [(read["source"], read["behind"]) for read in feed.reads()] == [("r1", None), ("r2", None)]


@pytest.mark.parametrize(
    ("sent_at", "received_at", "more", "expected_ms"),
    [
        (10.0, 10.3, AGES, 10_230.5),
        (10.0, 10.2, AGES, 10_200),  # the node's clock is ahead
        (10.25, 10.3, AGES, 10_250),  # and behind
        (10.0, 10.3, {"data_age_ms": None}, 10_300),
    ],
)
def test_a_read_is_at_the_time_at_which_the_node_answered(
    sent_at: float, received_at: float, more: Any, expected_ms: float
) -> None:
    feed = Kept()
    reply = Reply(200, at(5, **more), received_at, sent_at=sent_at)
    reads_of(feed).of_version(VersionRead("read-compare", "r1", reply, 2))
    assert [read["at_ms"] - AT_MS for read in feed.reads()] == [expected_ms]


ANSWER = {"key": "k", "version": 3, "position": "1-5", "source": "r1", "level": "eventual", "behind_versions": 2}


@pytest.mark.parametrize("behind", [2, None])
def test_a_read_at_a_level_is_at_the_time_at_which_its_answer_arrived(behind: int | None) -> None:
    feed = Kept()
    reads_of(feed).at_level({**ANSWER, "behind_versions": behind}, 10.5)
    expected = {"of": "read", "source": "r1", "key": "k", "version": 3, "level": "eventual", "behind": behind}
    assert feed.reads() == [{**expected, "at_ms": AT_MS + 10_500}]


def test_each_replica_that_a_read_asked_is_published() -> None:
    feed = Kept()
    asked = {
        "r1": {"version": 3, "position": "1-5", "read_at": "2026-01-01T00:00:10.250000Z"},
        "r2": {"version": 0, "position": "1-1", "read_at": None},
        "r3": {"version": 1, "position": "2-1", "read_at": None},
    }
    reads_of(feed).at_level({**ANSWER, "asked": asked}, 10.5)
    assert [(one["source"], one["version"], one["behind"], one["at_ms"] - AT_MS) for one in feed.reads()] == [
        ("r1", 3, 2, 10_250),
        ("r2", 0, 6, 10_500),
        ("r3", 1, None, 10_500),
    ]


def test_without_listeners_nothing_is_computed() -> None:
    nothing: Any = None
    feed = Feed(lambda: 42.0)
    Reads(feed, nothing).of_version(nothing)
    Reads(feed, nothing).at_level(nothing, 0.0)
    assert not feed._batch
