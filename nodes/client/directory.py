"""The lab as the primary reports it: its id, its replicas, and the head of its log."""

import threading
from concurrent import futures
from concurrent.futures import CancelledError, Future
from typing import NamedTuple

from broker.delay.models import Order
from broker.position import Position
from nodes.http.peers import Ask, PeerError, Peers, Reply

PATIENCE_SECONDS = 0.5  # for which a read waits for the head of the log


class KnownReplica(NamedTuple):
    replica_id: str
    url: str
    lag_ms: float | None
    order: Order | None
    diverged: bool
    faults: list[str]
    resyncing: str
    proven: bool
    acknowledged_version: int | None = None
    ack_lag_ms: float | None = None
    pending: int | None = None
    waiting: int | None = None
    applied_unacknowledged: int | None = None


class Directory:
    """The registered replicas by id, remembered so that reads do not depend on the primary. Thread-safe."""

    def __init__(self, peers: Peers, primary_url: str) -> None:
        self._peers = peers
        self._url = f"{primary_url}/replicas"
        self._known: dict[str, KnownReplica] = {}
        self._lab = ""

    def lab(self) -> str:
        """The id of the lab. Raises ``PeerError`` if the primary has never reported it."""
        if not self._lab:
            self.now()
        if not self._lab:
            raise PeerError("The primary has not reported its lab's id yet", sent=False, role="primary")
        return self._lab

    def replicas(self) -> dict[str, KnownReplica]:
        """The replicas as last reported. Asks the primary only while none is known."""
        return self._known or self.now()

    def now(self) -> dict[str, KnownReplica]:
        """The current replicas, or those last reported if the primary does not answer."""
        if (found := self.ask()) is not None:
            self._known = found
        return self._known

    def ask(self) -> dict[str, KnownReplica] | None:
        reply = self._peers.attempt(Ask(self._url))
        if not isinstance(reply, Reply) or reply.status != 200:
            return None
        self._lab = reply.body["lab"]
        found = (KnownReplica(*(replica[name] for name in KnownReplica._fields)) for replica in reply.body["replicas"])
        return {known.replica_id: known for known in found}


class LogHead:
    """Asks the primary for the head of the log, one question at a time. Thread-safe.

    Reads that arrive while a question is in progress share the next one, so a hanging primary occupies one thread
    regardless of the number of reads. Only the first reads wait for it, at most ``PATIENCE_SECONDS``; later ones do not
    wait until it has answered again.
    """

    def __init__(self, peers: Peers, primary_url: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._peers = peers
        self._url = f"{primary_url}/version"
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="head")
        self._next: Future[Position | None] = Future()
        self._next.cancel()
        self._silent = False

    def start(self) -> None:
        """Do nothing: the thread starts with the first question."""

    def stop(self) -> None:
        """Drop the question that has not been sent."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ask(self) -> Future[Position | None]:
        """The answer to a question that is sent after this call."""
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
        reply = self._peers.attempt(Ask(self._url))
        if not isinstance(reply, Reply):
            return None
        self._silent = False
        return Position.parse(reply.body["position"]) if reply.status == 200 else None
