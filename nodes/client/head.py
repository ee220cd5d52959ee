"""The newest position of the log, which the primary is asked for beside a read and never before it."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from broker.position import Position
from nodes.http.peers import Ask, PeerError, Peers

PATIENCE_SECONDS = 0.5


class LogHead:
    """Asks the primary for the head of the log, one question at a time. Thread-safe.

    Reads that arrive while a question is out share the next one, so a primary that hangs occupies one thread however
    many reads there are. Only reads that meet it first wait for it: at most ``PATIENCE_SECONDS``, and not at all from
    then on until it has answered again.
    """

    def __init__(self, peers: Peers, primary_url: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._peers = peers
        self._url = f"{primary_url}/version"
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="head")
        self._next: Future[Position | None] = Future()
        self._next.cancel()
        self._silent = False

    def start(self) -> None:
        """Do nothing: the thread starts with the first question."""

    def stop(self) -> None:
        """Drop the question that has not been sent."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ask(self) -> Future[Position | None]:
        """Have the primary asked, by a question that is sent after this call."""
        with self._lock:
            if self._next.running() or self._next.done():
                self._next = self._thread.submit(self.now)
            return self._next

    def answer(self, asked: Future[Position | None]) -> Position | None:
        """The head, or ``None`` if the primary does not report it in time."""
        try:
            return asked.result(0 if self._silent else self._patience_seconds)
        except TimeoutError:
            self._silent = True
        except CancelledError:  # the client is stopping
            pass
        return None

    def now(self) -> Position | None:
        """The head, asked for here and now; ``None`` if the primary does not report it."""
        try:
            reply = self._peers.ask(Ask(self._url))
        except PeerError:
            return None
        self._silent = False
        return Position.parse(reply.body["position"]) if reply.status == 200 else None
