"""The feed: every event of the lab, in messages sent ten times a second while a client listens."""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
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
After = Callable[[int], tuple[bytes, int] | None]
Before = Mapping[str, Sequence[Any]]
_NUMBER = re.compile("[0-9]{1,15}")  # int() raises for thousands of digits


class FeedQuery(Query):
    last_event_id: Annotated[str, Field(max_length=40)] = ""
    since_ms: Annotated[int, Field(ge=0, le=2**53, description="by the log server's clock")] | None = None


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

    def __init__(
        self, now_ms: Callable[[], float], listeners_max: int = LISTENERS_MAX, common: Mapping[str, str] | None = None
    ) -> None:
        """``common``: fields of every message."""
        self._now_ms = now_ms
        self._common = common or {}
        self._listeners_max = listeners_max
        self._process = secrets.token_hex(4)  # another process numbers other messages
        self._lock = threading.Lock()
        self._batch: dict[str, list[Any]] = {}
        self._left_out = 0
        self._ring: deque[bytes] = deque()  # the last messages, the newest of them with this number
        self._ring_bytes = 0
        self._times_ms: deque[float] = deque()  # of the messages in the ring
        self._kept_from_ms = 0.0  # later events are in the ring
        self._number = 0
        self._streams: set[Listener] = set()
        self._closed = False

    @property
    def listeners(self) -> int:
        return len(self._streams)

    def publish(self, kind: str, item: Any) -> None:
        if not self.listeners:
            return
        with self._lock:
            items = self._batch.setdefault(kind, [])
            if len(items) < _ITEMS_MAX:
                items.append(item)
            else:
                self._left_out += 1

    def flush(self) -> None:
        with self._lock:
            if not self._batch:
                return
            now_ms = self._now_ms()
            left_out = {"left_out": self._left_out} if self._left_out else {}
            data = self._message(now_ms, self._batch | left_out)
            self._batch, self._left_out = {}, 0
            self._number += 1
            event = self._event(f"data: {data}")
            self._keep(event, now_ms)
            chunk = b"%x\r\n%b\r\n" % (len(event), event)
            for stream in self._streams:
                stream.offer(chunk, self._number)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for stream in self._streams:
                stream.wake()

    def listen(
        self,
        last_id: str | None,
        sock: socket.socket | None = None,
        since_ms: float | None = None,
        before: Before | None = None,
    ) -> Listener:
        """Stream events after ``last_id``, or since a time, or from now on, until ``leave``.

        ``before``: items by kind, which come first if the stream is from now on. ``sock``: the connection of a chunked
        response, to send messages without waking the response's thread. Raises ``TooManyListeners``.
        """
        with self._lock:
            if self.listeners >= self._listeners_max:
                raise TooManyListeners(f"All {self._listeners_max} event streams of this lab are in use; close one")
            if not self._streams:
                self._skip()
            first = b"retry: 1000\n\n"
            if since_ms is not None and not last_id:
                seen = self._before(since_ms)
                first += self._kept()
            else:
                seen = self._seen(last_id)
                if before and not last_id:
                    first += f"data: {self._message(self._now_ms(), before)}\n\n".encode()
            stream = Listener(self._lock, self._after, seen, sock, first)
            self._streams.add(stream)
            return stream

    def leave(self, stream: Listener) -> None:
        with self._lock:
            self._streams.discard(stream)

    def _keep(self, message: bytes, now_ms: float) -> None:
        self._ring.append(message)
        self._times_ms.append(now_ms)
        self._ring_bytes += len(message)
        while len(self._ring) > _KEPT or (self._ring_bytes > _KEPT_BYTES and len(self._ring) > 1):
            self._ring_bytes -= len(self._ring.popleft())
            self._kept_from_ms = self._times_ms.popleft()

    def _skip(self) -> None:
        """Leave out a number: without listeners nothing is collected, so a listener that returns has missed it."""
        self._number += 1
        self._ring.clear()
        self._times_ms.clear()
        self._ring_bytes = 0
        self._kept_from_ms = self._now_ms()

    def _after(self, seen: int) -> tuple[bytes, int] | None:
        """The message after ``seen`` as a server-sent event (WHATWG HTML, 9.2), with its number.

        Empty if there is none; ``missed`` if it was dropped; ``None`` at the end.
        """
        if self._closed:
            return None
        behind = self._number - seen
        if behind == 0:
            return b"", seen
        if not 0 < behind <= len(self._ring):
            return self._event("event: missed\ndata: {}"), self._number
        return self._ring[-behind], seen + 1

    def _message(self, now_ms: float, items: Mapping[str, Any]) -> str:
        return strict_json.dumps({"now_ms": now_ms, **self._common, **items})

    def _event(self, text: str) -> bytes:
        return f"id: {self._process}-{self._number}\n{text}\n\n".encode()

    def _seen(self, last_id: str | None) -> int:
        """The number of the last message that a listener has; -1 if the missed messages are unknown."""
        if not last_id:
            return self._number
        process, _, number = last_id.partition("-")
        return int(number) if process == self._process and _NUMBER.fullmatch(number) else -1

    def _before(self, since_ms: float) -> int:
        """The number of the last message that a listener does not need: it starts with the newest one before a time."""
        earlier = sum(at_ms <= since_ms for at_ms in self._times_ms)
        return self._number - len(self._ring) + max(0, earlier - 1)

    def _kept(self) -> bytes:
        """An event that says from when on all events are kept, and the present."""
        kept = {"from_ms": self._kept_from_ms, "until_ms": self._now_ms()}
        return f"event: kept\ndata: {strict_json.dumps(kept)}\n\n".encode()


class Listener(Iterator[bytes]):
    """The events for one listener. Its thread sends them, and waits while there are none.

    Hundreds of threads that wake ten times a second would compete for the interpreter. So the feed itself writes a
    message to the connection of a waiting listener, as far as that is possible at once; the thread sends the rest.
    """

    def __init__(self, lock: threading.Lock, after: After, seen: int, sock: socket.socket | None, first: bytes) -> None:
        self._lock = lock
        self._after = after
        self._seen = seen
        self._sock = sock
        self._woken = threading.Condition(lock)
        self._waits = False
        self._rest = b""  # of a message that was not sent completely
        self._first = first

    def offer(self, chunk: bytes, number: int) -> None:
        """Take a message, as a chunk of the response, with the feed's lock."""
        if not self._waits or self._rest:
            return
        if self._sock is not None and self._seen == number - 1:
            self._seen = number
            self._rest = chunk[_sent(self._sock, chunk) :]
            if not self._rest:
                return
        self.wake()

    def wake(self) -> None:
        self._woken.notify()

    def __next__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        while True:
            with self._lock:
                found = self._next()
                rest, self._rest = self._rest, b""
            if not rest:
                if found is None:
                    raise StopIteration
                event, self._seen = found
                return event or b": no events\n\n"
            if self._sock is not None:
                self._sock.sendall(rest)

    def _next(self) -> tuple[bytes, int] | None:
        """The next event; empty if there is none for a while, or the rest of one was not sent."""
        found = self._after(self._seen)
        if found is not None and not found[0]:
            self._waits = True
            self._woken.wait(HEARTBEAT_SECONDS)
            self._waits = False
            found = (b"", self._seen) if self._rest else self._after(self._seen)
        return found


def _sent(sock: socket.socket, chunk: bytes) -> int:
    """Send what the connection takes at once. An error is left to the listener's thread, which will see it too."""
    try:
        return os.write(sock.fileno(), chunk)  # a socket with a timeout would wait in send()
    except OSError:
        return 0


def full(detail: str) -> bytes:
    """The stream for a page whose place is taken: a browser shows no other answer to it, and tries again."""
    return f"retry: {_FULL_RETRY_MS}\nevent: full\ndata: {strict_json.dumps({'detail': detail})}\n\n".encode()
