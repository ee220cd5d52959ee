"""The feed: every event of the lab, in messages sent ten times a second while a client listens."""

import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from nodes.client.errors import TooManyListeners
from nodes.http import strict_json
from nodes.http.api import Query

INTERVAL_SECONDS = 0.1
HEARTBEAT_SECONDS = 5.0
LISTENERS_MAX = 50
EVENT_STREAM = "text/event-stream"
LAST_EVENT_ID = {"Last-Event-ID": Annotated[str, Field(description="the ID of the last message received")]}
_KEPT = 600  # messages: a minute
_ITEMS_MAX = 2000  # of a kind, in one message
_NUMBER = re.compile("[0-9]{1,15}")  # int() raises for thousands of digits


class FeedQuery(Query):
    last_event_id: Annotated[str, Field(max_length=40)] = ""


class FeedEvent(TypedDict):
    data: str
    id: NotRequired[str]
    event: NotRequired[str]


class Feed:
    """Collects events into messages, and sends them to all listeners. Thread-safe. ``now_ms``: the log's clock.

    All listeners read from one ring of the last minute, each at its own pace, so a slow listener neither delays others
    nor costs memory. A listener that falls behind the ring gets ``missed`` and continues with the newest messages. A
    message has at most 2,000 items of a kind; the rest is counted (``left_out``).
    """

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._process = secrets.token_hex(4)  # another process numbers other messages
        self._changed = threading.Condition()
        self._batch: dict[str, list[Any]] = {}
        self._left_out = 0
        self._ring: deque[tuple[int, str]] = deque(maxlen=_KEPT)  # the last messages: number and JSON text
        self._number = 0
        self._streams: set[Iterator[str]] = set()
        self._closed = False

    @property
    def listeners(self) -> int:
        return len(self._streams)

    def publish(self, kind: str, item: Any) -> None:
        if not self.listeners:
            return
        with self._changed:
            items = self._batch.setdefault(kind, [])
            if len(items) < _ITEMS_MAX:
                items.append(item)
            else:
                self._left_out += 1

    def flush(self) -> None:
        with self._changed:
            if not self._batch:
                return
            batch: dict[str, Any] = {"now_ms": self._now_ms(), **self._batch}
            if self._left_out:
                batch["left_out"] = self._left_out
            self._batch, self._left_out = {}, 0
            self._number += 1
            self._ring.append((self._number, strict_json.dumps(batch)))
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def listen(self, last_id: str | None) -> Iterator[str]:
        """Stream events after ``last_id``, or from now on, until ``leave``. Raises ``TooManyListeners``."""
        with self._changed:
            if self.listeners >= LISTENERS_MAX:
                raise TooManyListeners(f"All {LISTENERS_MAX} event streams are in use; close one")
            stream = self._stream(self._seen(last_id))
            self._streams.add(stream)
            return stream

    def leave(self, stream: Iterator[str]) -> None:
        with self._changed:
            self._streams.discard(stream)

    def _stream(self, seen: int) -> Iterator[str]:
        yield "retry: 1000\n\n"
        while (found := self._after(seen)) is not None:
            text, seen = found
            yield text

    def _after(self, seen: int) -> tuple[str, int] | None:
        """Wait for messages after ``seen``; their text as server-sent events (WHATWG HTML, 9.2), and the last number.

        A comment if there are none for a while; ``missed`` if some were dropped; ``None`` at the end.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number != seen, HEARTBEAT_SECONDS)
            oldest = self._ring[0][0] if self._ring else self._number + 1
            missed = seen < oldest - 1 or seen > self._number
            newest = self._number
            found = [(number, text) for number, text in self._ring if number > seen]
        if self._closed:
            return None
        if missed:
            return f"id: {self._process}-{newest}\nevent: missed\ndata: {{}}\n\n", newest
        events = "".join(f"id: {self._process}-{number}\ndata: {text}\n\n" for number, text in found)
        return events or ": no events\n\n", newest

    def _seen(self, last_id: str | None) -> int:
        """The number of the last message that a listener has; -1 if the missed messages are unknown."""
        if not last_id:
            return self._number
        process, _, number = last_id.partition("-")
        return int(number) if process == self._process and _NUMBER.fullmatch(number) else -1
