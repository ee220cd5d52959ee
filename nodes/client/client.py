"""Writes through the client: alone, with a read from each replica, or with a wait until each has it."""

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import NotRequired, cast
from urllib.parse import urlencode

from typing_extensions import TypedDict

from broker.position import Position
from nodes.client.comparison import versions_behind
from nodes.client.directory import Directory
from nodes.client.errors import NoReplicas
from nodes.client.feed.reads import OnVersionRead, VersionRead
from nodes.client.metrics import ClientMetrics
from nodes.http.api import Query, TimeoutMs
from nodes.http.peers import Ask, PeerError, Peers, Reply, body_or_error, failure
from nodes.http.times import ms
from nodes.http.writing import AcksQuery, WriteAnswer, WriteBody
from nodes.runtime import caller
from nodes.runtime.background import Background
from nodes.runtime.tracing import Tracing

_RETRY_PAUSES_SECONDS = (0.02, 0.05, 0.1, 0.2)
_LOOKOUT_SECONDS = 1.0
_WRITE_MS = 6000  # to answer a write, excluding the acknowledgements it waits for
_NO_ACKS = AcksQuery()


class TimeoutQuery(Query):
    timeout_ms: TimeoutMs = 5000


class ImmediateRead(TypedDict):
    version: NotRequired[int]
    has_new_data: NotRequired[bool]
    data_age_ms: NotRequired[float | None]
    error: NotRequired[str]


class WriteAndReadAnswer(TypedDict):
    write_result: WriteAnswer
    immediate_reads: dict[str, ImmediateRead]
    stale_read_count: int
    total_replicas: int
    elapsed_ms: float
    note: str


class ReplicaWait(TypedDict):
    """``applied_after_ms``: commit to apply, by the log's clock; ``null`` if the replica has restarted since.

    ``observed_after_ms``: acknowledged to observed, by the client's clock.
    """

    applied_after_ms: NotRequired[float | None]
    observed_after_ms: NotRequired[float]
    attempts: int
    error: NotRequired[str]


class WriteAndWaitAnswer(TypedDict):
    """``attempts``: the most blocking reads that any replica needed."""

    write_result: WriteAnswer
    consistency_achieved: bool
    consistency_time_ms: float | None
    attempts: int
    replicas: dict[str, ReplicaWait]
    missing: list[str]
    timeout_ms: int


@dataclass
class Client:
    """A replica that does not answer is reported with ``error``; a failed write raises as ``Peers.require`` does."""

    primary_url: str
    peers: Peers
    directory: Directory
    metrics: ClientMetrics
    tracing: Tracing
    on_read: OnVersionRead = lambda _: None

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._lookout = Background("lookout", self._look_out)
        self.waiting: list[str] = []  # the ids of writes that wait for convergence

    def start(self) -> None:
        self._lookout.start()

    def stop(self) -> None:
        self._lookout.stop()
        self._stopped.set()
        self.peers.close()

    def health(self) -> dict[str, str]:
        reply = self.peers.attempt(Ask(f"{self.primary_url}/health"))
        if isinstance(reply, PeerError):
            return {"primary": str(reply)}
        return {"primary": "ok" if reply.status == 200 else f"{self.primary_url} is degraded"}

    def write(self, body: WriteBody, write_id: str, acks: AcksQuery) -> WriteAnswer:
        return cast("WriteAnswer", self._write(body, write_id, acks).body)

    def write_and_read(self, body: WriteBody, write_id: str) -> WriteAndReadAnswer:
        replicas = self._replicas()
        with self.peers.team(len(replicas)) as team:
            started = time.monotonic()
            written = self.write(body, write_id, _NO_ACKS)
            asks = {name: partial(self.peers.attempt, Ask(f"{url}/version")) for name, url in replicas.items()}
            found = team.run_all(asks)
        reads = {replica: self._immediate(replica, reply, written) for replica, reply in found.items()}
        stale = sum(not read["has_new_data"] for read in reads.values() if "has_new_data" in read)
        return {
            "write_result": written,
            "immediate_reads": reads,
            "stale_read_count": stale,
            "total_replicas": len(reads),
            "elapsed_ms": ms((time.monotonic() - started) * 1e6),
            "note": f"{stale} of {len(reads)} replicas did not have version {written['version']} yet"
            if stale
            else f"every replica that answered had version {written['version']} already",
        }

    def write_and_wait(self, body: WriteBody, write_id: str, timeout_ms: int) -> WriteAndWaitAnswer:
        replicas = self._replicas()
        with self.peers.team(len(replicas)) as team:
            self.waiting.append(write_id)
            try:
                written = self._write(body, write_id, _NO_ACKS)
                calls = {name: partial(self._wait, url, written, timeout_ms) for name, url in replicas.items()}
                waits = team.run_all(calls)
            finally:
                self.waiting.remove(write_id)
        missing = [replica for replica, wait in waits.items() if "observed_after_ms" not in wait]
        window_ms = None if missing else max(wait["observed_after_ms"] for wait in waits.values())
        outcome, took_ms = ("timeout", timeout_ms) if window_ms is None else ("converged", window_ms)
        self.metrics.window_seconds.labels(outcome).observe(took_ms / 1000)
        return {
            "write_result": cast("WriteAnswer", written.body),
            "consistency_achieved": window_ms is not None,
            "consistency_time_ms": window_ms,
            "attempts": max(wait["attempts"] for wait in waits.values()),
            "replicas": waits,
            "missing": missing,
            "timeout_ms": timeout_ms,
        }

    def _wait(self, url: str, written: Reply, timeout_ms: int) -> ReplicaWait:
        """Ask one replica for the write's position until it has it; repeated only after a lost connection."""
        position, deadline = written.body["position"], written.received_at + timeout_ms / 1000
        attempts = 0
        while True:
            caller.require()
            left_ms = max(0, round((deadline - time.monotonic()) * 1000))
            fields = {"min_position": position, "timeout_ms": str(left_ms)}
            attempts += 1
            reply = self.peers.attempt(Ask(f"{url}/version", fields=fields, wait_ms=left_ms))
            problem = failure(reply)
            if isinstance(reply, Reply) and reply.status == 200:
                # A replica of another program can answer at once, without these two members.
                if reply.body.get("reached", Position.parse(reply.body["position"]) >= Position.parse(position)):
                    observed_ms = ms((reply.received_at - written.received_at) * 1e6)
                    applied_ms = reply.body.get("applied_after_ms")
                    return {"applied_after_ms": applied_ms, "observed_after_ms": observed_ms, "attempts": attempts}
                problem = f"is at {reply.body['position']}"
                if reply.body["epoch"] > Position.parse(position).epoch:
                    return {"error": f"{problem}: the lab was reset", "attempts": attempts}
            pause = _RETRY_PAUSES_SECONDS[min(attempts, len(_RETRY_PAUSES_SECONDS)) - 1]
            if time.monotonic() + pause >= deadline or self._stopped.wait(pause):
                return {"error": problem, "attempts": attempts}

    def _look_out(self) -> None:
        """Keep the directory up to date in the background; reads never request it."""
        self.metrics.know(self.directory.now().keys())
        self._lookout.pause(_LOOKOUT_SECONDS)

    def _replicas(self) -> dict[str, str]:
        if replicas := self.directory.now():
            return {name: known.url for name, known in replicas.items()}
        raise NoReplicas("No replica is registered yet")

    def _write(self, body: WriteBody, write_id: str, acks: AcksQuery) -> Reply:
        asked = urlencode(acks.model_dump(exclude_defaults=True))
        wait_ms = _WRITE_MS + (acks.timeout_ms if acks.acks else 0)
        headers = {"Idempotency-Key": write_id, **self.tracing.outgoing()}
        content = {"key": body.key, "value": body.value}
        ask = Ask(
            f"{self.primary_url}/data{asked and f'?{asked}'}", "POST", body=content, headers=headers, wait_ms=wait_ms
        )
        return self.peers.require(ask, "primary", write_id=write_id)

    def _immediate(self, replica: str, reply: Reply | PeerError, written: WriteAnswer) -> ImmediateRead:
        answer = body_or_error(reply)
        if "error" in answer:
            self.metrics.reads.labels(replica, "error").inc()
            return {"error": answer["error"]}
        position, head = Position.parse(answer["position"]), Position.parse(written["position"])
        fresh = position >= head
        self.on_read(VersionRead("write-and-read", replica, cast("Reply", reply), versions_behind(position, head)))
        self.metrics.reads.labels(replica, "fresh" if fresh else "stale").inc()
        return {"version": answer["version"], "has_new_data": fresh, "data_age_ms": answer.get("data_age_ms")}
