"""Acknowledgements of writes by the replicas, as reported through the log server; writes wait for them here."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from broker.errors import LogError
from broker.history import History
from broker.position import Position
from broker.registry import Member, Registry
from broker.report import Report, Reports
from nodes.http.writing import AcksQuery, WriteAnswer
from nodes.primary.errors import TooFewReplicas, WriteFailed
from nodes.runtime import caller
from nodes.runtime.gate import Places

_WAIT_SECONDS = 1.0  # for a report or a write, which bounds how late the thread notices a stop
_LINGER_SECONDS = 1.0  # after the last write, before the subscription ends


class Acknowledgements:
    """Waits until enough replicas have acknowledged an entry; ``places`` bounds how many writes wait. Thread-safe.

    An acknowledgement made before its write waits is found in the log, as are those of a time without a subscription.
    """

    def __init__(
        self, subscribe: Callable[[], Reports], history: History, registered: Registry, places: Places
    ) -> None:
        self._subscribe, self._history, self._registered, self._places = subscribe, history, registered, places
        self._reports: Reports | None = None
        self._newest: dict[str, Report] = {}  # by replica
        self._wanted = threading.Event()  # set by each write that starts to wait
        self._lock = threading.Lock()
        self._waiting: dict[Position, list[_Waiting]] = {}

    def step(self) -> None:
        """Take the next reports, subscribed only while writes wait: reading them costs as much as a write.

        Raises ``LogError``, and then subscribes again at the next step.
        """
        try:
            if self._reports is None:
                if not self._wanted.wait(_WAIT_SECONDS):
                    return
                self._reports = self._subscribe()
                for position in list(self._waiting):
                    self._look_up(position)
            self._wanted.clear()
            for report in self._reports.wait(_WAIT_SECONDS):
                self._newest[report.replica] = report
                for position in report.acknowledged:
                    self._acknowledged(position, [report.replica])
            if not self._waiting and not self._wanted.wait(_LINGER_SECONDS):
                self._unsubscribe()
        except LogError:
            self._unsubscribe()
            self._wanted.set()
            raise

    def _unsubscribe(self) -> None:
        if self._reports is not None:
            self._reports.close()
            self._reports = None

    @contextmanager
    def required(self, count: int) -> Iterator[set[str]]:
        """Return the replicas that can acknowledge a write, with a place to wait for them.

        Raises ``TooFewReplicas``, ``TooManyWaiters`` or ``WriteFailed`` before anything is written.
        """
        if count == 0:
            yield set()
            return
        try:
            replicas = {member.replica for member in self._registered.members()}
        except LogError as error:
            raise WriteFailed(error, outcome="not_applied") from error
        if count > len(replicas):
            raise TooFewReplicas(f"acks: {count} replicas are required, but {len(replicas)} are registered")
        with self._places.one():
            yield replicas

    def complete(self, written: WriteAnswer, replicas: set[str], query: AcksQuery) -> WriteAnswer:
        """Wait until enough replicas have acknowledged the write or the time is up, and add their ids."""
        by = self._wait(Position.parse(written["position"]), replicas, query.acks, query.timeout_ms / 1000)
        return {**written, "acks_reached": len(by), "acknowledged_by": by}

    def _wait(self, position: Position, replicas: Collection[str], count: int, timeout_seconds: float) -> list[str]:
        """Return the first ``count`` of these replicas that acknowledge an entry, fewer if the time is up."""
        waiting = _Waiting(replicas, count)
        with self._lock:
            self._waiting.setdefault(position, []).append(waiting)
        self._wanted.set()
        try:
            with suppress(LogError):
                self._look_up(position)
            caller.wait(waiting.enough.wait, timeout_seconds, time.monotonic)
        finally:
            with self._lock:
                others = self._waiting[position]
                others.remove(waiting)
                if not others:
                    del self._waiting[position]
        return waiting.by[:count]

    def waiting(self) -> int:
        """The number of writes that wait."""
        return sum(map(len, list(self._waiting.values())))

    def close(self) -> None:
        """End all waits."""
        with self._lock:
            for waiting in self._waiting.values():
                for one in waiting:
                    one.enough.set()

    def unacknowledged(self, member: Member) -> int | None:
        """The number of applied entries that a replica has not acknowledged, by its newest report or heartbeat."""
        report = self._newest.get(member.replica)
        is_newer = report is not None and report.at_us >= member.seen_at_us
        return report.unacknowledged if report is not None and is_newer else member.unacknowledged

    def _look_up(self, position: Position) -> None:
        self._acknowledged(position, self._history.acknowledged(position))

    def _acknowledged(self, position: Position, replicas: list[str]) -> None:
        with self._lock:
            for waiting in self._waiting.get(position, ()):
                waiting.add(replicas)


class _Waiting:
    def __init__(self, replicas: Collection[str], count: int) -> None:
        self.by: list[str] = []
        self.enough = threading.Event()
        self._replicas, self._count = replicas, count

    def add(self, replicas: list[str]) -> None:
        self.by += [replica for replica in replicas if replica in self._replicas and replica not in self.by]
        if len(self.by) >= self._count:
            self.enough.set()
