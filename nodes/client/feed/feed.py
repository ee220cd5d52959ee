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
LISTENERS_MAX = 200  # each holds a thread
EVENT_STREAM = "text/event-stream"
LAST_EVENT_ID = {"Last-Event-ID": Annotated[str, Field(description="the ID of the last message received")]}
_KEPT = 600  # messages: a minute
_KEPT_BYTES = 16 * 2**20
_FULL_RETRY_MS = 10_000
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

    All listeners read from one ring of the last minute, at most 16 MiB, each at its own pace, so a slow listener
    neither delays others nor costs memory. A listener that falls behind the ring gets ``missed`` and continues with the
    newest messages. A message has at most 2,000 items of a kind; the rest is counted (``left_out``). It is serialized
    once.
    """

    def __init__(self, now_ms: Callable[[], float], listeners_max: int = LISTENERS_MAX) -> None:
        self._now_ms = now_ms
        self._listeners_max = listeners_max
        self._process = secrets.token_hex(4)  # another process numbers other messages
        self._changed = threading.Condition()
        self._batch: dict[str, list[Any]] = {}
        self._left_out = 0
        self._ring: deque[bytes] = deque()  # the last messages, the newest of them with this number
        self._ring_bytes = 0
        self._number = 0
        self._streams: set[Iterator[bytes]] = set()
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
            self._keep(self._event(f"data: {strict_json.dumps(batch)}"))
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def listen(self, last_id: str | None) -> Iterator[bytes]:
        """Stream events after ``last_id``, or from now on, until ``leave``. Raises ``TooManyListeners``."""
        with self._changed:
            if self.listeners >= self._listeners_max:
                raise TooManyListeners(f"All {self._listeners_max} event streams of this lab are in use; close one")
            if not self._streams:
                self._skip()
            stream = self._stream(self._seen(last_id))
            self._streams.add(stream)
            return stream

    def leave(self, stream: Iterator[bytes]) -> None:
        with self._changed:
            self._streams.discard(stream)

    def _keep(self, message: bytes) -> None:
        self._ring.append(message)
        self._ring_bytes += len(message)
        while len(self._ring) > _KEPT or (self._ring_bytes > _KEPT_BYTES and len(self._ring) > 1):
            self._ring_bytes -= len(self._ring.popleft())

    def _skip(self) -> None:
        """Leave out a number: without listeners nothing is collected, so who continues from before has missed it."""
        self._number += 1
        self._ring.clear()
        self._ring_bytes = 0

    def _stream(self, seen: int) -> Iterator[bytes]:
        yield b"retry: 1000\n\n"
        while (found := self._after(seen)) is not None:
            event, seen = found
            yield event

    def _after(self, seen: int) -> tuple[bytes, int] | None:
        """Wait for the message after ``seen``; return it as a server-sent event (WHATWG HTML, 9.2), with its number.

        A comment if there is none for a while; ``missed`` if it was dropped; ``None`` at the end.
        """
        with self._changed:
            if not self._closed and self._number == seen:
                self._changed.wait(HEARTBEAT_SECONDS)
            if self._closed:
                return None
            if self._number == seen:
                return b": no events\n\n", seen
            behind = self._number - seen
            if not 0 < behind <= len(self._ring):
                return self._event("event: missed\ndata: {}"), self._number
            return self._ring[-behind], seen + 1

    def _event(self, text: str) -> bytes:
        return f"id: {self._process}-{self._number}\n{text}\n\n".encode()

    def _seen(self, last_id: str | None) -> int:
        """The number of the last message that a listener has; -1 if the missed messages are unknown."""
        if not last_id:
            return self._number
        process, _, number = last_id.partition("-")
        return int(number) if process == self._process and _NUMBER.fullmatch(number) else -1


def full(detail: str) -> bytes:
    """The stream for a page whose place is taken: a browser shows no other answer to it, and tries again."""
    return f"retry: {_FULL_RETRY_MS}\nevent: full\ndata: {strict_json.dumps({'detail': detail})}\n\n".encode()
