"""The feed: everything that happens, in messages that come ten times a second while somebody listens."""

from __future__ import annotations

import re
import secrets
import threading
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from nodes.http import strict_json
from nodes.http.api import Query

INTERVAL_SECONDS = 0.1
HEARTBEAT_SECONDS = 5.0
LISTENERS_MAX = 50
EVENT_STREAM = "text/event-stream"
_KEPT = 600  # a minute of messages
_ITEMS_MAX = 2000
_NUMBER = re.compile("[0-9]{1,15}")  # int() raises for thousands of digits


class FeedQuery(Query):
    """From where on."""

    last_event_id: Annotated[str, Field(max_length=40)] = ""


LAST_EVENT_ID = {"Last-Event-ID": Annotated[str, Field(description="the ID of the last message that has arrived")]}


class FeedEvent(TypedDict):
    """One event. ``data`` is JSON: a list for each kind of what happened; ``event`` is ``missed`` after a gap."""

    data: str
    id: NotRequired[str]
    event: NotRequired[str]


class Message(NamedTuple):
    """One message. ``number`` counts them; ``text`` is JSON: what happened, a list for each kind."""

    number: int
    text: str


class TooManyListeners(Exception):
    """Raised when fifty listen already."""


class Feed:
    """Collects what happens into messages, and gives them to those who listen. Thread-safe.

    All listeners read from one ring of the last minute, each at its own pace, so that a slow one holds back nobody and
    costs no memory. One that falls behind the ring is told so (``missed``), and goes on with what there is. A message
    has at most 2,000 items of a kind; what is beyond that is counted (``left_out``).
    """

    def __init__(self, now_ms: Callable[[], float]) -> None:
        """``now_ms`` is the log's clock, in milliseconds since 1970; each message says when it was made."""
        self._now_ms = now_ms
        self._process = secrets.token_hex(4)  # numbers of another process count something else
        self._changed = threading.Condition()
        self._batch: dict[str, list[Any]] = {}
        self._left_out = 0
        self._ring: deque[Message] = deque(maxlen=_KEPT)
        self._number = 0
        self._listeners = 0
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return self._listeners

    def publish(self, kind: str, item: Any) -> None:
        """Something of this kind has happened; nobody hears of it where nobody listens."""
        if not self._listeners:
            return
        with self._changed:
            items = self._batch.setdefault(kind, [])
            if len(items) < _ITEMS_MAX:
                items.append(item)
            else:
                self._left_out += 1

    def flush(self) -> None:
        """Make a message of what has happened since the last, where anything has."""
        with self._changed:
            if not self._batch:
                return
            batch: dict[str, Any] = {"now_ms": self._now_ms(), **self._batch}
            if self._left_out:
                batch["left_out"] = self._left_out
            self._batch, self._left_out = {}, 0
            self._number += 1
            self._ring.append(Message(self._number, strict_json.dumps(batch)))
            self._changed.notify_all()

    def close(self) -> None:
        """End every listening."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def listen(self, last_id: str | None) -> Listener:
        """Listen from after ``last_id`` on, or from now on. Raises ``TooManyListeners``."""
        with self._changed:
            if self._listeners >= LISTENERS_MAX:
                raise TooManyListeners
            listener = Listener(self, self._seen(last_id))
            self._listeners += 1
            return listener

    def name(self, number: int) -> str:
        """The ID of a message, by which a listener goes on."""
        return f"{self._process}-{number}"

    def after(self, seen: int) -> tuple[list[Message], int | None] | None:
        """The messages after ``seen``, waiting for the first of them; ``None`` at the end.

        Where some of them are gone: none, and the number to go on from.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number != seen, HEARTBEAT_SECONDS)
            if self._closed:
                return None
            oldest = self._ring[0].number if self._ring else self._number + 1
            if seen < oldest - 1 or seen > self._number:
                return [], self._number
            return [message for message in self._ring if message.number > seen], None

    def leave(self) -> None:
        """One listens no more."""
        with self._changed:
            self._listeners -= 1

    def _seen(self, last_id: str | None) -> int:
        """The number of the last message that a listener knows; -1 where nobody can say what it has missed."""
        if not last_id:
            return self._number
        process, _, number = last_id.partition("-")
        return int(number) if process == self._process and _NUMBER.fullmatch(number) else -1


class Listener:
    """One who listens: an iterator of texts, each some server-sent events (WHATWG HTML, 9.2)."""

    def __init__(self, feed: Feed, seen: int) -> None:
        self._feed = feed
        self._seen = seen
        self._began = False
        self._left = False

    def __iter__(self) -> Listener:
        """Itself."""
        return self

    def __next__(self) -> str:
        """What has happened since, when something has, or a comment after a while in which nothing did."""
        if not self._began:
            self._began = True
            return "retry: 1000\n\n"
        found = self._feed.after(self._seen)
        if found is None:
            raise StopIteration
        messages, missed_until = found
        if missed_until is not None:
            self._seen = missed_until
            return f"id: {self._feed.name(missed_until)}\nevent: missed\ndata: {{}}\n\n"
        if not messages:
            return ": nothing has happened\n\n"
        self._seen = messages[-1].number
        return "".join(f"id: {self._feed.name(message.number)}\ndata: {message.text}\n\n" for message in messages)

    def close(self) -> None:
        """Listen no more. The server calls it when the connection is gone."""
        if not self._left:
            self._left = True
            self._feed.leave()
