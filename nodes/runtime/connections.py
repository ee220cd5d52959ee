"""The HTTP server of a node: gunicorn's threaded worker, with a different way of waiting for a thread.

Gunicorn's worker assigns a connection to a thread before its request has arrived, reads without a time limit, queues
without bound, and accepts nothing while idle connections fill it. Here a loop receives a request before a thread does.
"""

import errno
import json
import re
import selectors
import socket
import time
from collections import Counter, deque
from concurrent import futures
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from gunicorn import http
from gunicorn.workers import gthread

from nodes.runtime.caller import CONNECTION, RequestTimeout, is_readable

PROBLEM_TYPE = "urn:eventual-consistency-lab:"
RESERVED_THREADS = 8  # beyond the configured ones, for requests that diagnose and fix problems
RECEIVE_SECONDS = 5.0  # for a request to arrive: its head, and its body
SEND_SECONDS = 30.0  # for a caller to receive part of an answer
QUEUE_SECONDS = 1.0  # for a complete request to find a thread before it is refused
_LINGER_SECONDS = 2.0  # for the caller of a closed connection to see the last answer
_TICK_SECONDS = 0.1
_RECEIVED_MAX = 32 * 1024  # of a request in the loop; a larger body is read by a thread
_RESERVED = re.compile(rb"[A-Z]+ /(?:health|metrics|faults|admin)(?:[/?][^ ]*)? HTTP/")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
_UNKNOWN_LENGTH = re.compile(rb"\r\n(?:transfer-encoding|expect):", re.IGNORECASE)
_NO_FILES = {errno.EMFILE, errno.ENFILE}

Kind = Literal["reserved", "complete", "unfinished"]


class Connection(gthread.TConn):  # type: ignore[misc]
    """A connection and the received part of its next request. Its parser reads from it as from a socket."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.received = bytearray()
        self.kind: Kind = "unfinished"
        self.refused = False
        self.parser = http.get_parser(cfg, self, client)
        self.initialized = True  # no initialization in a thread

    def missing(self) -> int | None:
        """The number of missing bytes of the request; ``None`` if unknown, or more than the loop holds."""
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return 1
        head = bytes(self.received[: end + 2])
        if _UNKNOWN_LENGTH.search(head):
            return None
        length = _LENGTH.search(head)
        size = end + 4 + (int(length[1]) if length else 0)
        return max(0, size - len(self.received)) if size <= _RECEIVED_MAX else None

    def recv(self, size: int) -> bytes:
        """Return the received bytes, then the rest of a large body. Raises ``RequestTimeout``."""
        if self.received:
            received, self.received = bytes(self.received), bytearray()
            return received
        if not is_readable(self.sock, self.timeout - time.monotonic()):
            raise RequestTimeout("The body of this request did not arrive in time")
        rest: bytes = self.sock.recv(size)
        return rest


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """Passes requests to threads, in order.

    At most ``threads`` are in progress at once, besides those of the reserved threads; a thread still reads the body of
    at most half of them. A request that does not arrive in time is closed; a request without a thread in time is
    refused with 503. At the maximum number of connections the oldest idle one makes room.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections: int = self.cfg.worker_connections
        self.max_keepalived = self.worker_connections  # the oldest idle one makes room instead
        self.pending_conns: dict[Connection, None] = {}  # receiving, or closed and lingering
        self._queues: dict[Kind, deque[Connection]] = {"reserved": deque(), "complete": deque(), "unfinished": deque()}
        self._running: Counter[Kind] = Counter()

    def get_thread_pool(self) -> futures.ThreadPoolExecutor:
        return futures.ThreadPoolExecutor(self.cfg.threads + RESERVED_THREADS)

    # -- receiving, in the loop ---------------------------------------------------------------------------------------
    def accept(self, listener: Any) -> None:
        if self.nr_conns + 1 >= self.worker_connections:
            self._close_oldest()
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_FILES and not self._close_oldest():
                self.worker_connections = max(1, self.nr_conns)  # as many as there are files for
            elif error.errno not in {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, *_NO_FILES}:
                raise
            return
        self.nr_conns += 1
        conn = Connection(self.cfg, sock, address, listener.getsockname())
        self._receive(conn)
        self._watch(conn)

    def _receive(self, conn: Connection) -> None:
        conn.timeout = self._until(RECEIVE_SECONDS)
        self.pending_conns[conn] = None

    def _until(self, seconds: float) -> float:
        """The time these seconds from now, or earlier if the node is stopping."""
        return time.monotonic() + (seconds if self.alive else min(seconds, gthread.STOP_KEEPALIVE_LINGER))

    def _watch(self, conn: Connection) -> None:
        conn.sock.setblocking(False)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))

    def _on_readable(self, conn: Connection, _sock: Any) -> None:
        if conn.sock.fileno() < 0:  # closed to make room after it became readable
            return
        try:
            part = conn.sock.recv(_RECEIVED_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            part = b""
        if conn.refused or not (part or conn.received):
            if not part:
                self._close(conn)
        elif not part:
            self._refuse(conn, 400, "Incomplete Request", "The connection ended before the whole request had arrived.")
        else:
            conn.received += part
            self._received(conn)

    def _received(self, conn: Connection) -> None:
        missing = conn.missing()
        if not missing:
            self._forget(conn)
            complete: Kind = "reserved" if _RESERVED.match(conn.received) else "complete"
            self._queue(conn, complete if missing == 0 else "unfinished")
        elif len(conn.received) > _RECEIVED_MAX:
            detail = "The head of a request must have at most 32 KiB."
            self._refuse(conn, 431, "Request Header Fields Too Large", detail)
        elif conn not in self.pending_conns:
            self.keepalived_conns.remove(conn)
            self._receive(conn)

    def _queue(self, conn: Connection, kind: Kind) -> None:
        conn.kind, conn.timeout = kind, time.monotonic() + QUEUE_SECONDS
        queue = self._queues[kind]
        queue.append(conn)
        self._start()
        if len(queue) > (self.worker_connections - self.cfg.threads) // 2:  # the rest is for arriving requests
            self._refuse_busy(queue.popleft())

    def _start(self) -> None:
        for kind, queue in self._queues.items():
            while queue and self._has_thread(kind):
                conn = queue.popleft()
                conn.timeout = time.monotonic() + RECEIVE_SECONDS  # for the rest of a large body
                self._running[kind] += 1
                self.enqueue_req(conn)

    def _has_thread(self, kind: Kind) -> bool:
        threads: int = self.cfg.threads
        if kind == "unfinished" and self._running[kind] >= threads // 2:
            return False
        return self._running.total() < threads + (RESERVED_THREADS if kind == "reserved" else 0)

    def finish_request(self, conn: Connection, fs: futures.Future[bool]) -> None:
        self._running[conn.kind] -= 1
        self._start()
        if fs.exception() is not None or not fs.result():
            self._linger(conn)
            return
        conn.received += conn.parser.unreader.take_buffered()
        conn.timeout = self._until(self.cfg.keepalive)
        self.keepalived_conns.append(conn)
        self._watch(conn)
        if conn.received:
            self._received(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events, at most until the next deadline."""
        short = bool(self.pending_conns or any(self._queues.values()))
        super().wait_for_and_dispatch_events(min(timeout, _TICK_SECONDS) if short else timeout)

    # -- closing, in the loop -----------------------------------------------------------------------------------------
    def murder_keepalived(self, force: bool = False) -> None:
        now = time.monotonic()
        while self.keepalived_conns and (force or self.keepalived_conns[0].timeout <= now):
            self._close(self.keepalived_conns[0])

    def murder_pending(self) -> None:
        now = time.monotonic()
        for conn in [conn for conn in self.pending_conns if conn.timeout <= now]:
            self._close(conn)
        for queue in self._queues.values():
            while queue and queue[0].timeout <= now:
                self._refuse_busy(queue.popleft())

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _close_oldest(self) -> bool:
        """Close the longest lingering, idle or else receiving connection; ``False`` if there is none."""
        lingering = [conn for conn in self.pending_conns if conn.refused]
        for conn in [*lingering, *self.keepalived_conns, *self.pending_conns]:
            if conn.refused or not is_readable(conn.sock, 0):  # a request that has arrived must not be lost
                self._close(conn)
                return True
        return False

    def _refuse_busy(self, conn: Connection) -> None:
        detail = f"{self._running.total()} requests are in progress on this node, its limit; try again shortly."
        self._refuse(conn, 503, "Too Many Requests In Progress", detail)

    def _refuse(self, conn: Connection, status: int, title: str, detail: str) -> None:
        conn.sock.setblocking(False)
        with suppress(OSError):
            conn.sock.send(refusal(status, title.lower().replace(" ", "-"), title, detail))
        self._forget(conn)
        self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        """Close the connection after its caller has: an earlier reset could overtake the response."""
        conn.refused = True
        conn.received.clear()
        conn.timeout = self._until(_LINGER_SECONDS)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            self._watch(conn)
        except (OSError, ValueError):
            self._close(conn)
        else:
            self.pending_conns[conn] = None

    def _forget(self, conn: Connection) -> None:
        self.pending_conns.pop(conn, None)
        if conn in self.keepalived_conns:
            self.keepalived_conns.remove(conn)
        with suppress(KeyError, ValueError, OSError):  # possibly not watched
            self.poller.unregister(conn.sock)

    def _close(self, conn: Connection) -> None:
        self._forget(conn)
        self.nr_conns -= 1
        self.worker_connections = self.max_keepalived  # a file descriptor is available again
        conn.close()

    # -- answering, in a thread ---------------------------------------------------------------------------------------
    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Answer a request; close the connection if the caller does not receive the response in time."""
        conn.sock.settimeout(SEND_SECONDS)
        token = CONNECTION.set(conn.sock)
        try:
            answered: bool = super().handle_request(req, conn)
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "the caller does not receive the response") from error
        finally:
            CONNECTION.reset(token)
        return answered


def refusal(status: int, slug: str, title: str, detail: str) -> bytes:
    """Return a complete response with problem details, for a request without a view; it ends the connection."""
    members = {"type": PROBLEM_TYPE + slug, "title": title, "status": status, "detail": detail}
    body = json.dumps({**members, "outcome": "not_applied"}, separators=(",", ":")).encode() + b"\n"
    headers = f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    if status == 503:
        headers += "Retry-After: 1\r\n"
    return f"HTTP/1.1 {status} {title}\r\n{headers}\r\n".encode() + body
