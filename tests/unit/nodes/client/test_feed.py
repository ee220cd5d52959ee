"""The feed: events in messages, for listeners that each read at their own pace."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.clock import LogClock
from broker.entry import Entry
from broker.history import Delivered
from broker.log import ReplicationLog
from broker.position import Position
from broker.registry import Events
from nodes.client.app import add_feed
from nodes.client.errors import TooManyListeners
from nodes.client.feed import feed as module
from nodes.client.feed.feed import INTERVAL_SECONDS, LISTENERS_MAX, Feed, Listener
from nodes.client.feed.sources import PROGRESS, Progress, Sources, follow_replica, write_item
from nodes.http.app import make_app
from nodes.http.peers import NotJson, PeerError
from nodes.runtime.config import load
from nodes.runtime.gate import Places
from nodes.runtime.tracing import Tracing
from tests.support.peers import StubPeers
from tests.support.until import until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)


def make() -> Feed:
    return Feed(lambda: 42.0)


def say(feed: Feed, *numbers: int) -> None:
    for number in numbers:
        feed.publish("writes", number)
        feed.flush()


def heard(listener: Iterator[bytes]) -> list[tuple[str, dict[str, Any]]]:
    """The events of the next text: their IDs, and their data."""
    found = []
    for event in next(listener).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields["id"], json.loads(fields["data"])))
    return found


def started(feed: Feed, last_id: str | None = None) -> Listener:
    listener = feed.listen(last_id)
    assert next(listener) == b"retry: 1000\n\n"
    return listener


def test_events_of_one_interval_are_one_message_with_a_time() -> None:
    feed = make()
    listener = started(feed)
    feed.publish("writes", 1)
    feed.publish("writes", 2)
    feed.publish("reads", 3)
    feed.flush()
    assert [message for _, message in heard(listener)] == [{"now_ms": 42.0, "writes": [1, 2], "reads": [3]}]


def test_every_message_has_the_common_fields() -> None:
    feed = Feed(lambda: 42.0, common={"log": "lab14:log"})
    listener = started(feed)
    say(feed, 1)
    assert heard(listener)[0][1] == {"now_ms": 42.0, "log": "lab14:log", "writes": [1]}


def test_nothing_is_kept_without_a_listener() -> None:
    feed = make()
    say(feed, 1)
    listener = started(feed)
    say(feed, 2)
    assert [message["writes"] for _, message in heard(listener)] == [[2]]


def test_without_events_a_comment_keeps_the_connection_open() -> None:
    listener = started(make())
    assert next(listener) == b": no events\n\n"


def test_a_listener_resumes_after_its_last_message() -> None:
    feed = make()
    listener = started(feed)
    say(feed, 1, 2, 3)
    found = [heard(listener)[0] for _ in range(3)]
    assert [message["writes"] for _, message in found] == [[1], [2], [3]]
    again = started(feed, found[0][0])
    assert [heard(again)[0][1]["writes"] for _ in range(2)] == [[2], [3]]


def test_a_listener_that_returns_after_all_had_left_is_notified_of_missed_messages() -> None:
    feed = make()
    listener = started(feed)
    say(feed, 1)
    ((last_id, _),) = heard(listener)
    feed.leave(listener)
    say(feed, 2)  # which no listener reads
    assert b"event: missed" in next(started(feed, last_id))


def since(feed: Feed, since_ms: float) -> tuple[dict[str, Any], Listener]:
    """What a listener that asks for a time is told first, and the listener."""
    listener = feed.listen(None, since_ms=since_ms)
    retry, _, event, data = next(listener).decode().strip().splitlines()
    assert (retry, event) == ("retry: 1000", "event: kept")
    return json.loads(data.removeprefix("data: ")), listener


class Clock:
    now_ms = 1000.0

    def feed(self) -> Feed:
        return Feed(lambda: self.now_ms)

    def say(self, feed: Feed, *times_ms: float) -> None:
        for self.now_ms in times_ms:
            say(feed, self.now_ms)


@pytest.mark.parametrize(("since_ms", "first"), [(500, 2000), (2000, 2000), (2999, 2000), (3000, 3000), (9000, 4000)])
def test_a_listener_can_ask_for_the_messages_since_a_time_and_the_newest_one_before(since_ms: int, first: int) -> None:
    clock = Clock()
    feed = clock.feed()
    started(feed)
    clock.say(feed, 2000, 3000, 4000)
    clock.now_ms = 4500
    told, listener = since(feed, since_ms)
    assert told == {"from_ms": 1000, "until_ms": 4500}  # nothing was collected before the first listener
    expected = [at for at in (2000, 3000, 4000) if at >= first]
    assert [heard(listener)[0][1]["writes"] for _ in expected] == [[at] for at in expected]
    assert next(listener) == b": no events\n\n"


def test_a_listener_that_asks_for_a_time_is_told_from_when_on_the_messages_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_KEPT", 2)
    clock = Clock()
    feed = clock.feed()
    first = started(feed)
    clock.say(feed, 2000, 3000, 4000, 5000)
    told, listener = since(feed, 0)
    assert told == {"from_ms": 3000, "until_ms": 5000}
    assert heard(listener)[0][1]["writes"] == [4000]
    feed.leave(first)
    feed.leave(listener)
    clock.now_ms = 6000
    told, listener = since(feed, 0)
    assert told == {"from_ms": 6000, "until_ms": 6000}
    assert next(listener) == b": no events\n\n"


@pytest.mark.parametrize("since_ms", ["x", "-1", "", "nan", "inf", "1e400", "9" * 5000, str(2**53 + 1), "1&since_ms=2"])
def test_an_invalid_time_is_rejected_and_takes_no_place(since_ms: str) -> None:
    app, api = make_app(load("client", {}), Tracing(), CollectorRegistry())
    feed = make()
    add_feed(api, feed, Places(4), dict)
    refused = app.test_client().get(f"/events?since_ms={since_ms}")
    assert (refused.status_code, refused.content_type) == (400, "application/problem+json")
    assert feed.listeners == 0


def test_the_endpoint_passes_the_time_on_unless_a_message_is_named() -> None:
    app, api = make_app(load("client", {}), Tracing(), CollectorRegistry())
    feed = make()
    add_feed(api, feed, Places(4), dict)
    answer = app.test_client().get("/events?since_ms=1000")
    assert b"event: kept" in next(iter(answer.response))  # type: ignore[arg-type]
    answer.close()
    answer = app.test_client().get("/events?since_ms=1000", headers={"Last-Event-ID": "x-1"})
    assert next(iter(answer.response)) == b"retry: 1000\n\n"  # type: ignore[arg-type]
    answer.close()


def test_a_message_is_serialized_once_for_all_listeners() -> None:
    feed = make()
    listeners = [started(feed) for _ in range(3)]
    say(feed, 1)
    one, *others = [next(listener) for listener in listeners]
    assert all(other is one for other in others)


def test_kept_messages_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 1000)
    feed = make()
    slow, slower = started(feed), started(feed)
    for number in range(3):
        feed.publish("writes", "x" * 400)
        say(feed, number)
    assert feed._ring_bytes == sum(map(len, feed._ring)) <= 1000
    assert b"event: missed" in next(slow)
    feed.publish("writes", "x" * 2000)
    feed.flush()
    assert len(heard(slow)[0][1]["writes"][0]) == 2000  # the newest message is kept, whatever its size
    assert b"event: missed" in next(slower)


UNKNOWN = ["another-1", "nonsense", "-", "1-1", "PROCESS-", "PROCESS-²", f"PROCESS-{'9' * 5000}"]


@pytest.mark.parametrize("last_id", UNKNOWN, ids=range(len(UNKNOWN)))
def test_a_listener_of_another_process_is_notified_of_missed_messages(last_id: str) -> None:
    feed = make()
    listener = started(feed, last_id.replace("PROCESS", feed._process))
    assert b"event: missed" in next(listener)
    say(feed, 1)
    assert [message["writes"] for _, message in heard(listener)] == [[1]]


def test_a_slow_listener_is_notified_of_missed_messages_and_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = make()
    slow, quick = started(feed), started(feed)
    kept = module._KEPT
    for number in range(kept + 10):
        say(feed, number)
        assert heard(quick)[0][1]["writes"] == [number]
    assert b"event: missed" in next(slow)
    say(feed, -1)
    assert [message["writes"] for _, message in heard(slow)] == [[-1]]


def test_a_message_is_bounded_and_counts_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ITEMS_MAX", 3)
    feed = make()
    listener = started(feed)
    for number in range(5):
        feed.publish("writes", number)
    feed.flush()
    ((_, message),) = heard(listener)
    assert (message["writes"], message["left_out"]) == ([0, 1, 2], 2)


def test_the_number_of_listeners_is_bounded() -> None:
    feed = make()
    listeners = [feed.listen(None) for _ in range(LISTENERS_MAX)]
    with pytest.raises(TooManyListeners):
        feed.listen(None)
    feed.leave(listeners[0])
    feed.leave(listeners[0])
    assert feed.listeners == LISTENERS_MAX - 1
    feed.listen(None)


@pytest.mark.parametrize("last_id", ["9" * 5000, f"PROCESS-{'9' * 5000}", "x" * 41], ids=range(3))
def test_an_invalid_last_event_id_is_rejected_and_takes_no_place(last_id: str) -> None:
    app, api = make_app(load("client", {}), Tracing(), CollectorRegistry())
    feed = make()
    add_feed(api, feed, Places(4), dict)
    http = app.test_client()
    for _ in range(LISTENERS_MAX):
        refused = http.get("/events", headers={"Last-Event-ID": last_id.replace("PROCESS", feed._process)})
        assert (refused.status_code, refused.content_type) == (400, "application/problem+json")
    http.head("/events").close()
    assert feed.listeners == 0


@pytest.mark.parametrize(("listeners_max", "places"), [(1, 4), (4, 1)])
def test_without_a_free_stream_a_browser_gets_an_event_and_others_a_problem(listeners_max: int, places: int) -> None:
    app, api = make_app(load("client", {}), Tracing(), CollectorRegistry())
    feed = Feed(lambda: 42.0, listeners_max)
    add_feed(api, feed, Places(places), dict)
    http = app.test_client()
    first = http.get("/events")
    for _ in range(5):  # a refused listener takes no place
        refused = http.get("/events")
        assert (refused.status_code, refused.content_type) == (503, "application/problem+json")
        browser = http.get("/events", headers={"Accept": module.EVENT_STREAM})
        retry, event, data = browser.get_data(as_text=True).split("\n\n")[0].splitlines()
        assert (browser.status_code, retry, event) == (200, "retry: 10000", "event: full")
        assert json.loads(data.removeprefix("data: ")) == {"detail": refused.json and refused.json["detail"]}
        browser.close()
    first.close()
    assert feed.listeners == 0
    http.get("/events").close()


def test_closing_the_feed_ends_all_streams() -> None:
    feed = make()
    listener = started(feed)
    threading.Timer(0.05, feed.close).start()
    assert all(text.startswith(b":") for text in listener)


def test_replicas_are_followed_at_their_url_while_they_are_registered(fake: Any) -> None:
    log = ReplicationLog(fake)
    clock = LogClock(log.history.now_us, lambda: 0, lambda: 0)
    parts: dict[str, Any] = {"log": log, "events": Events(fake), "peers": StubPeers(), "clock": clock}
    sources = Sources(make(), primary_url="http://primary", **parts)
    one, two, elsewhere = ("r1", "http://one"), ("r2", "http://two"), ("r2", "http://elsewhere")
    sources._follow({one, two})
    first, second = sources._followed[*one, "applied"], sources._followed[*two, "applied"]
    sources._follow({one, elsewhere})
    assert (sources._followed[*one, "applied"], second.stopping) == (first, True)
    sources._follow({elsewhere})
    assert (set(sources._followed), first.stopping) == ({(*elsewhere, kind) for kind in PROGRESS}, True)
    sources.stop()


def test_a_write_has_the_fields_of_its_entry() -> None:
    entry = Entry(Position(1, 42), "set", "k", "x" * 200, "id", 1_767_225_600_000_123, "00-trace")
    assert write_item(entry) == {
        "position": "1-42",
        "op": "set",
        "key": "k",
        "value": "x" * 120 + "…",
        "value_bytes": 200,
        "at_ms": 1_767_225_600_000.123,
        "write_id": "id",
        "traceparent": "00-trace",
    }


def test_a_listener_first_gets_the_newest_entries_from_before_the_stream(fake: Any) -> None:
    log = ReplicationLog(fake)
    log.open("open")
    first, second = (log.append("set", "k", str(n), f"write-{n}").position for n in range(2))
    feed = make()
    parts: dict[str, Any] = {"log": log, "events": Events(fake), "peers": StubPeers()}
    sources = Sources(feed, primary_url="http://p", clock=LogClock(log.history.now_us, lambda: 0, lambda: 0), **parts)
    listener = started(feed)
    at, pause_seconds = sources._follow_log(None)
    feed.flush()
    ((name, message),) = heard(listener)
    assert [item["position"] for item in message["earlier"]][-2:] == [str(first), str(second)]
    assert (at, pause_seconds) == (second, 0)
    later = feed.listen(None, before=sources.before())
    opening = json.loads(next(later).decode().split("data: ")[1])
    assert opening["earlier"] == message["earlier"]
    assert next(feed.listen(name, before=sources.before())) == b"retry: 1000\n\n"  # it resumes


def test_what_is_delivered_is_published_when_it_has_changed_and_once_a_second(fake: Any) -> None:
    log = ReplicationLog(fake)
    log.open("open")
    feed = make()
    listener = started(feed)
    parts: dict[str, Any] = {"log": log, "events": Events(fake), "peers": StubPeers()}
    sources = Sources(
        feed, primary_url="http://primary", clock=LogClock(log.history.now_us, lambda: 0, lambda: 0), **parts
    )
    places: list[Delivered] = [
        Delivered(at_us, {"r1": Position(1, version), "r2": Position(1, 0)})
        for at_us, version in [(1_000_000, 0), (1_900_000, 0), (2_000_000, 0), (2_100_000, 1), (2_200_000, 1)]
    ]
    last, published = None, []
    for place in places:
        log.history.delivered = lambda place=place: place  # type: ignore[method-assign]
        last, pause_seconds = sources._follow_groups(last)
        assert pause_seconds == INTERVAL_SECONDS
        feed.publish("end", 1)
        feed.flush()
        published.append(heard(listener)[0][1].get("groups"))
    of = [
        [{"replica": name, "delivered": position, "at_ms": at_ms} for name, position in [("r1", one), ("r2", "1-0")]]
        for one, at_ms in [("1-0", 1000), ("1-0", 2000), ("1-1", 2100)]
    ]
    assert published == [of[0], None, of[1], of[2], None]


@pytest.mark.parametrize("kind", PROGRESS)
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (PeerError("gone", sent=False), {"unreachable": [{"node": "r1", "detail": "gone"}]}),
        ((503, {"detail": "no"}), {}),
        (NotJson("no such page", sent=True), {}),  # a replica of another program does not have the endpoint
    ],
)
def test_a_replica_that_does_not_answer_is_asked_again_after_a_pause(
    kind: Progress, answer: Any, told: dict[str, Any]
) -> None:
    feed = make()
    listener = started(feed)
    peers = StubPeers(**{f"r1/{kind}": answer})
    cursor, pause_seconds = follow_replica(feed, peers, "r1", "http://r1", kind, "a-7")
    assert (cursor, pause_seconds > 0) == ("a-7", True)
    feed.publish("end", 1)
    feed.flush()
    ((_, message),) = heard(listener)
    assert {kind: items for kind, items in message.items() if kind not in {"now_ms", "end"}} == told


@pytest.mark.parametrize("kind", PROGRESS)
def test_a_replica_is_followed_from_its_first_answer_on(kind: Progress) -> None:
    entry = {"position": "1-7", f"{kind}_at": "2026-01-01T00:00:00Z", f"{kind}_after_ms": 500.4, "lateness_ms": 0.4}
    answers = [{kind: [entry], "cursor": "a-7"}, {kind: [entry | {"position": "1-8"}], "cursor": "a-8"}]
    feed = make()
    listener = started(feed)
    peers = StubPeers(**{f"r1/{kind}": answers})
    cursor, first = follow_replica(feed, peers, "r1", "http://r1", kind, None)
    last, pause_seconds = follow_replica(feed, peers, "r1", "http://r1", kind, cursor)
    assert (first, last) == (0, "a-8")
    assert 0 < pause_seconds < 0.1  # more entries in one request
    feed.flush()
    ((_, message),) = heard(listener)
    item = {"position": "1-8", f"{kind}_ms": 1767225600000, f"{kind}_after_ms": 500.4, "lateness_ms": 0.4}
    assert message[kind] == [{"replica": "r1", **item}]
    assert [ask.fields and ask.fields.get("cursor") for ask in peers.asked] == [None, "a-7"]


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A node's end of a connection, with a small buffer, and its caller's."""
    own, other = socket.socketpair()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    own.settimeout(30)
    other.settimeout(10)
    with own, other:
        yield own, other


def waiting(stream: Listener) -> tuple[list[bytes], threading.Thread]:
    """Run a listener's thread until it waits; the list has what the thread itself sends."""
    sent: list[bytes] = []
    thread = threading.Thread(target=lambda: sent.extend(stream), daemon=True)
    thread.start()
    until(lambda: stream._waits)
    return sent, thread


def chunks(sock: socket.socket, count: int) -> list[bytes]:
    with sock.makefile("rb") as file:
        found = []
        for _ in range(count):
            found.append(file.read(int(file.readline(), 16)))
            assert file.readline() == b"\r\n"
    return found


def test_a_waiting_listener_gets_messages_without_being_woken(
    monkeypatch: pytest.MonkeyPatch, connection: tuple[socket.socket, socket.socket]
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 60)
    feed = make()
    sent, thread = waiting(feed.listen(None, connection[0]))
    say(feed, 1, 2)
    assert chunks(connection[1], 2) == list(feed._ring)
    feed.close()
    thread.join(10)
    assert sent == [b"retry: 1000\n\n"]


def test_the_thread_of_a_listener_that_does_not_read_sends_the_rest_in_order(
    monkeypatch: pytest.MonkeyPatch, connection: tuple[socket.socket, socket.socket]
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 60)
    feed = make()
    stream = feed.listen(None, connection[0])
    sent, thread = waiting(stream)
    feed.publish("writes", "x" * 2**20)
    feed.flush()
    until(lambda: not stream._waits)
    say(feed, 2, 3)  # the thread is sending the first one, so these are for the thread as well
    assert chunks(connection[1], 1) == [feed._ring[0]]
    until(lambda: stream._waits)
    say(feed, 4)
    assert chunks(connection[1], 1) == [feed._ring[3]]
    feed.close()
    thread.join(10)
    assert sent == [b"retry: 1000\n\n", feed._ring[1], feed._ring[2]]


def test_a_listener_whose_caller_has_left_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch, connection: tuple[socket.socket, socket.socket]
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 60)
    feed = make()
    stream = feed.listen(None, connection[0])
    next(stream)
    errors: list[Exception] = []

    def run() -> None:
        try:
            next(stream)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: stream._waits)
    connection[1].close()
    say(feed, 1)
    thread.join(10)
    assert [type(error) for error in errors] == [BrokenPipeError]
