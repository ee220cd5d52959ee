"""The feed: what happens, in messages, for those who listen, each at its own pace."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.clock import LogClock
from broker.log import ReplicationLog
from broker.registry import Events
from nodes.client.app import _add_feed
from nodes.client.feed import feed as module
from nodes.client.feed.feed import LISTENERS_MAX, Feed, Listener, TooManyListeners
from nodes.client.feed.sources import Follower, Sources
from nodes.http.app import make_app
from nodes.http.peers import PeerError
from nodes.runtime.config import load
from nodes.runtime.tracing import Tracing
from tests.support.peers import StubPeers


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)


def make() -> Feed:
    return Feed(lambda: 42.0)


def say(feed: Feed, *numbers: int) -> None:
    for number in numbers:
        feed.publish("writes", number)
        feed.flush()


def heard(listener: Listener) -> list[tuple[str, dict[str, Any]]]:
    """The events of the next text: their IDs, and their data."""
    found = []
    for event in next(listener).split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields["id"], json.loads(fields["data"])))
    return found


def begun(feed: Feed, last_id: str | None = None) -> Listener:
    listener = feed.listen(last_id)
    assert next(listener) == "retry: 1000\n\n"
    return listener


def test_what_happens_together_is_one_message_that_says_when() -> None:
    feed = make()
    listener = begun(feed)
    feed.publish("writes", 1)
    feed.publish("writes", 2)
    feed.publish("reads", 3)
    feed.flush()
    assert [message for _, message in heard(listener)] == [{"now_ms": 42.0, "writes": [1, 2], "reads": [3]}]


def test_nothing_is_kept_while_nobody_listens() -> None:
    feed = make()
    say(feed, 1)
    listener = begun(feed)
    say(feed, 2)
    assert [message["writes"] for _, message in heard(listener)] == [[2]]


def test_where_nothing_happens_a_comment_keeps_the_connection() -> None:
    listener = begun(make())
    assert next(listener) == ": nothing has happened\n\n"


def test_a_listener_goes_on_after_the_last_that_it_knows() -> None:
    feed = make()
    listener = begun(feed)
    say(feed, 1, 2, 3)
    found = heard(listener)
    assert [message["writes"] for _, message in found] == [[1], [2], [3]]
    again = begun(feed, found[0][0])
    assert [message["writes"] for _, message in heard(again)] == [[2], [3]]


UNKNOWN = ["another-1", "nonsense", "-", "1-1", "PROCESS-", "PROCESS-²", f"PROCESS-{'9' * 5000}"]


@pytest.mark.parametrize("last_id", UNKNOWN, ids=range(len(UNKNOWN)))
def test_a_listener_of_another_process_is_told_that_it_missed_something(last_id: str) -> None:
    feed = make()
    listener = begun(feed, last_id.replace("PROCESS", feed._process))
    assert "event: missed" in next(listener)
    say(feed, 1)
    assert [message["writes"] for _, message in heard(listener)] == [[1]]


def test_a_slow_listener_is_told_what_it_missed_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = make()
    slow, quick = begun(feed), begun(feed)
    kept = module._KEPT
    for number in range(kept + 10):
        say(feed, number)
        assert heard(quick)[0][1]["writes"] == [number]
    assert "event: missed" in next(slow)
    say(feed, -1)
    assert [message["writes"] for _, message in heard(slow)] == [[-1]]


def test_a_message_has_no_more_than_its_bound_and_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ITEMS_MAX", 3)
    feed = make()
    listener = begun(feed)
    for number in range(5):
        feed.publish("writes", number)
    feed.flush()
    ((_, message),) = heard(listener)
    assert (message["writes"], message["left_out"]) == ([0, 1, 2], 2)


def test_so_many_may_listen_and_no_more_until_one_leaves() -> None:
    feed = make()
    listeners = [feed.listen(None) for _ in range(LISTENERS_MAX)]
    with pytest.raises(TooManyListeners):
        feed.listen(None)
    listeners[0].close()
    listeners[0].close()
    assert feed.listeners == LISTENERS_MAX - 1
    feed.listen(None)


@pytest.mark.parametrize("last_id", ["9" * 5000, f"PROCESS-{'9' * 5000}", "x" * 41], ids=range(3))
def test_a_wrong_last_event_id_is_refused_and_takes_no_place(last_id: str) -> None:
    app, api = make_app(load("client", {}), Tracing(), CollectorRegistry())
    feed = make()
    _add_feed(api, feed)
    http = app.test_client()
    for _ in range(LISTENERS_MAX):
        refused = http.get("/events", headers={"Last-Event-ID": last_id.replace("PROCESS", feed._process)})
        assert (refused.status_code, refused.content_type) == (400, "application/problem+json")
    http.head("/events").close()
    assert feed.listeners == 0


def test_in_the_end_every_listening_ends() -> None:
    feed = make()
    listener = begun(feed)
    threading.Timer(0.05, feed.close).start()
    assert all(text.startswith(":") for text in listener)


def test_replicas_are_followed_where_they_are_and_no_longer_than_they_are_registered(fake: Any) -> None:
    log = ReplicationLog(fake)
    clock = LogClock(log.history.now_us, lambda: 0, lambda: 0)
    parts: dict[str, Any] = {"log": log, "events": Events(fake), "peers": StubPeers(), "clock": clock}
    sources = Sources(make(), primary_url="http://primary", **parts)
    sources._watch({"r1": "http://one", "r2": "http://two"})
    first, second = sources._replicas["r1"], sources._replicas["r2"]
    sources._watch({"r1": "http://one", "r2": "http://elsewhere"})
    assert (sources._replicas["r1"], second.stopping) == (first, True)
    sources._watch({"r2": "http://elsewhere"})
    assert (list(sources._replicas), first.stopping) == (["r2"], True)
    sources.stop()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (PeerError("gone", sent=False), {"unreachable": [{"node": "r1", "detail": "gone"}]}),
        ((503, {"detail": "no"}), {}),
    ],
)
def test_a_replica_that_does_not_answer_is_asked_again_after_a_pause(answer: Any, told: dict[str, Any]) -> None:
    feed = make()
    listener = begun(feed)
    follower = Follower(feed, StubPeers(**{"r1/applied": answer}), "r1", "http://r1")
    assert follower.step() > 0
    feed.publish("end", 1)
    feed.flush()
    ((_, message),) = heard(listener)
    assert {kind: items for kind, items in message.items() if kind not in {"now_ms", "end"}} == told


def test_what_a_replica_applies_is_told_from_the_first_answer_on_and_not_before() -> None:
    entry = {"position": "1-7", "applied_at": "2026-01-01T00:00:00Z", "applied_after_ms": 500.4, "lateness_ms": 0.4}
    answers = [{"applied": [entry], "cursor": "a-7"}, {"applied": [entry | {"position": "1-8"}], "cursor": "a-8"}]
    feed = make()
    listener = begun(feed)
    peers = StubPeers(**{"r1/applied": answers})
    follower = Follower(feed, peers, "r1", "http://r1")
    assert (follower.step(), follower.step()) == (0, 0)
    feed.flush()
    ((_, message),) = heard(listener)
    assert [(one["position"], one["applied_ms"]) for one in message["applied"]] == [("1-8", 1767225600000)]
    assert [ask.fields and ask.fields.get("cursor") for ask in peers.asked] == [None, "a-7"]
