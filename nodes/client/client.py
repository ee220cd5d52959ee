"""The client behind its endpoints: it writes to the primary, reads from the replicas, and compares."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast
from urllib.parse import quote

from broker.position import Position
from nodes.client.answers import (
    Analysis,
    CompareAnswer,
    EverywhereAnswer,
    ImmediateRead,
    NodeAnswer,
    ReplicaStatus,
    ReplicaWait,
    StaleReplica,
    StatusAnswer,
    WriteAndReadAnswer,
    WriteAndWaitAnswer,
)
from nodes.client.directory import Directory, Known
from nodes.client.metrics import ClientMetrics
from nodes.http.peers import Ask, PeerError, PeerRefused, Peers, Reply
from nodes.http.problem import Problem
from nodes.http.times import ms, timestamp
from nodes.http.writing import AcksQuery, WriteAnswer, WriteBody
from nodes.runtime import caller
from nodes.runtime.background import Background
from nodes.runtime.config import NodeConfig
from nodes.runtime.tracing import Tracing

_RETRY_PAUSES_SECONDS = (0.02, 0.05, 0.1, 0.2)
_LOOKOUT_SECONDS = 1.0
_WRITE_MS = 6000
_PRIMARY = "primary"
_KNOWN = "known"


class Client:
    """Writes and measures. A node that does not answer is reported with ``error``, and the rest all the same."""

    def __init__(
        self, config: NodeConfig, *, peers: Peers, directory: Directory, metrics: ClientMetrics, tracing: Tracing
    ) -> None:
        self._config = config
        self._peers = peers
        self._directory = directory
        self._metrics = metrics
        self._tracing = tracing
        self._waiting = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._lookout = Background("lookout", self._look_out)

    def start(self) -> None:
        """Start looking for replicas."""
        self._lookout.start()

    def stop(self) -> None:
        """Give up waiting."""
        self._lookout.stop()
        self._stopped.set()
        self._peers.close()

    def health(self) -> dict[str, str]:
        """Whether the primary answers as one that is well."""
        try:
            reply = self._peers.ask(Ask(f"{self._config.primary_url}/health"))
        except PeerError as error:
            return {"primary": str(error)}
        return {"primary": "ok" if reply.status == 200 else f"{self._config.primary_url} is degraded"}

    def write(self, body: WriteBody, write_id: str, acks: AcksQuery) -> WriteAnswer:
        """Write, and wait for as many replicas as asked. Raises ``Problem`` when the write failed."""
        return self._write(body, write_id, acks)[0]

    # -- measuring ----------------------------------------------------------------------------------------------------

    def write_and_read(self, body: WriteBody, write_id: str) -> WriteAndReadAnswer:
        """Write, and read from every replica at once without waiting. Raises ``Problem`` when the write failed."""
        replicas = self._replicas()
        with self._peers.team(len(replicas)) as team:
            began = time.monotonic()
            written, _ = self._write(body, write_id)
            found = team.run_all({known.replica: partial(self._ask, f"{known.url}/version") for known in replicas})
        reads = {replica: self._immediate(replica, reply, written) for replica, reply in found.items()}
        stale = sum(not read["has_new_data"] for read in reads.values() if "has_new_data" in read)
        return {
            "write_result": written,
            "immediate_reads": reads,
            "stale_read_count": stale,
            "total_replicas": len(reads),
            "elapsed_ms": ms((time.monotonic() - began) * 1e6),
            "note": f"{stale} of {len(reads)} replicas did not have version {written['version']} yet"
            if stale
            else f"every replica that answered had version {written['version']} already",
        }

    def write_and_wait(self, body: WriteBody, write_id: str, timeout_ms: int) -> WriteAndWaitAnswer:
        """Write, and wait until every replica has applied it. Raises ``Problem`` when the write failed."""
        replicas = self._replicas()
        with self._peers.team(len(replicas)) as team, self._counted():
            written, acknowledged_at = self._write(body, write_id)
            waits = team.run_all(
                {
                    known.replica: partial(self._wait, known.url, written["position"], acknowledged_at, timeout_ms)
                    for known in replicas
                }
            )
        missing = [replica for replica, wait in waits.items() if "observed_after_ms" not in wait]
        window_ms = None if missing else max(wait["observed_after_ms"] for wait in waits.values())
        outcome = "timeout" if window_ms is None else "converged"
        self._metrics.window_seconds.labels(outcome).observe((timeout_ms if window_ms is None else window_ms) / 1000)
        return {
            "write_result": written,
            "consistency_achieved": window_ms is not None,
            "consistency_time_ms": window_ms,
            "attempts": max(wait["attempts"] for wait in waits.values()),
            "replicas": waits,
            "missing": missing,
            "timeout_ms": timeout_ms,
        }

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _wait(self, url: str, position: str, acknowledged_at: float, timeout_ms: int) -> ReplicaWait:
        """Ask one replica for the position until it has it; again only where its connection was lost."""
        deadline = acknowledged_at + timeout_ms / 1000
        attempts = 0
        while True:
            caller.require()
            left_ms = max(0, round((deadline - time.monotonic()) * 1000))
            fields = {"min_position": position, "timeout_ms": str(left_ms)}
            attempts += 1
            try:
                reply = self._peers.ask(Ask(f"{url}/version", fields=fields, wait_ms=left_ms))
            except PeerError as error:
                problem = str(error)
            else:
                if reply.body.get("reached"):
                    observed_ms = ms((reply.received_at - acknowledged_at) * 1e6)
                    applied_ms = reply.body["applied_after_ms"]
                    return {"applied_after_ms": applied_ms, "observed_after_ms": observed_ms, "attempts": attempts}
                problem = (
                    f"is at {reply.body.get('position')}" if reply.status == 200 else str(reply.body.get("detail"))
                )
                if reply.status == 200 and reply.body["epoch"] > Position.parse(position).epoch:
                    return {"error": f"{problem}: the lab was reset", "attempts": attempts}
            pause = _RETRY_PAUSES_SECONDS[min(attempts, len(_RETRY_PAUSES_SECONDS)) - 1]
            if time.monotonic() + pause >= deadline or self._stopped.wait(pause):
                return {"error": problem, "attempts": attempts}

    # -- comparing ----------------------------------------------------------------------------------------------------

    def compare(self, *, digest: bool) -> CompareAnswer:
        """Read from every node at once, and compare with the primary; with ``digest``, the content too."""
        urls = {_PRIMARY: self._config.primary_url}
        urls |= {known.replica: known.url for known in self._directory.replicas()}
        answers = self._ask_all(urls, "/version")
        if digest:
            for name, found in self._ask_all(urls, "/digest").items():
                content = {"digest": found.get("digest"), "keys": found.get("keys"), "at": found.get("position")}
                answers[name]["content"] = found if "error" in found else content
        primary = answers.pop(_PRIMARY)
        analysis = _analyse(primary, answers)
        if digest:
            analysis |= _analyse_content(primary, answers)
        return {"primary": primary, "replicas": answers, "analysis": analysis}

    def everywhere(self, key: str) -> EverywhereAnswer:
        """What each node answers for a key now, without waiting for anything; a missing one has version 0."""
        urls = {known.replica: known.url for known in self._directory.replicas()}
        path = f"/data/{quote(key, safe='')}"
        asks = {_PRIMARY: f"{self._config.primary_url}{path}"} | {name: f"{url}{path}" for name, url in urls.items()}
        found = self._peers.ask_all({name: Ask(url) for name, url in asks.items()})
        return {"key": key, "nodes": {name: _answered(reply) for name, reply in found.items()}}

    def status(self) -> StatusAnswer:
        """All nodes now."""
        urls = {_PRIMARY: self._config.primary_url}
        urls |= {known.replica: known.url for known in self._directory.replicas()}
        calls: dict[str, Callable[[], Any]] = {name: partial(self._ask, f"{url}/version") for name, url in urls.items()}
        answers = self._peers.run_all({**calls, _KNOWN: self._directory.ask})
        known = {found.replica: found for found in answers.pop(_KNOWN) or []}
        primary = answers.pop(_PRIMARY)
        replicas = [_status(name, answer, primary, known.get(name)) for name, answer in answers.items()]
        found: StatusAnswer = {
            "primary_version": primary.get("version"),
            "primary_write_id": primary.get("write_id"),
            "all_consistent": "error" not in primary and all(replica["is_consistent"] for replica in replicas),
            "waiting_for_consistency": self._waiting > 0,
            "last_poll_time": timestamp(time.time_ns() // 1000),
            "replicas": replicas,
        }
        if "error" in primary:
            found["error"] = primary["error"]
        return found

    def _look_out(self) -> None:
        """Keep the directory up to date beside the reads, which never ask for it."""
        self._metrics.know([known.replica for known in self._directory.now()])
        self._lookout.pause(_LOOKOUT_SECONDS)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _replicas(self) -> list[Known]:
        """The replicas to measure, a new one included. Raises ``Problem`` where there are none to measure."""
        replicas = self._directory.now()
        if not replicas:
            problem = Problem(503, "no-replicas", "No replicas", "No replica is registered yet.", outcome="not_applied")
            problem.headers["Retry-After"] = "1"
            raise problem
        return replicas

    def _ask(self, url: str) -> dict[str, Any]:
        """A node's answer, or ``{"error": sentence}``."""
        try:
            reply = self._peers.ask(Ask(url))
        except PeerError as error:
            return {"error": str(error)}
        return reply.body if reply.status == 200 else {"error": str(reply.body.get("detail", reply.status))}

    def _ask_all(self, urls: dict[str, str], path: str) -> dict[str, dict[str, Any]]:
        return self._peers.run_all({name: partial(self._ask, f"{url}{path}") for name, url in urls.items()})

    def _write(self, body: WriteBody, write_id: str, acks: AcksQuery | None = None) -> tuple[WriteAnswer, float]:
        """Send the write; the answer, and when it had come. Raises ``PeerRefused`` or ``Problem``."""
        asked = f"?acks={acks.acks}&timeout_ms={acks.timeout_ms}" if acks is not None and acks.acks else ""
        wait_ms = _WRITE_MS + (acks.timeout_ms if asked and acks is not None else 0)
        headers = {"Idempotency-Key": write_id, **self._tracing.outgoing()}
        content = {"key": body.key, "value": body.value}
        try:
            reply = self._peers.ask(
                Ask(f"{self._config.primary_url}/data{asked}", "POST", body=content, headers=headers, wait_ms=wait_ms)
            )
        except PeerError as error:
            outcome = "unknown" if error.sent else "not_applied"
            problem = Problem(
                503,
                "primary-unavailable",
                "The primary is unavailable",
                f"{error}.",
                outcome=outcome,
                write_id=write_id,
            )
            problem.headers["Retry-After"] = "1"
            raise problem from error
        if reply.status != 200:
            doubt = {"outcome": "unknown"} if reply.repeated else {}
            raise PeerRefused(reply.status, reply.body | doubt)
        return cast("WriteAnswer", reply.body), reply.received_at

    def _immediate(self, replica: str, answer: dict[str, Any], written: WriteAnswer) -> ImmediateRead:
        if "error" in answer:
            self._metrics.reads.labels(replica, "error").inc()
            return {"error": answer["error"]}
        fresh = Position.parse(answer["position"]) >= Position.parse(written["position"])
        self._metrics.reads.labels(replica, "fresh" if fresh else "stale").inc()
        return {"version": answer["version"], "has_new_data": fresh, "data_age_ms": answer["data_age_ms"]}


def _answered(reply: Reply | PeerError) -> NodeAnswer:
    if isinstance(reply, PeerError):
        return {"error": str(reply)}
    if reply.status not in {200, 404} or "position" not in reply.body:
        return {"error": str(reply.body.get("detail", reply.status))}
    return {
        "value": reply.body.get("value"),
        "version": reply.body.get("version", 0),
        "position": reply.body["position"],
    }


def _analyse(primary: dict[str, Any], replicas: dict[str, dict[str, Any]]) -> Analysis:
    stale: list[StaleReplica] = []
    consistent: list[str] = []
    for name, answer in replicas.items():
        behind = _behind(answer, primary)
        if behind == 0:
            consistent.append(name)
        elif behind is not None:
            stale.append({"name": name, "version": answer["version"], "behind_by": behind})
    return {
        "primary_version": primary.get("version"),
        "stale_replicas": stale,
        "consistent_replicas": consistent,
        "all_consistent": "error" not in primary and len(consistent) == len(replicas),
    }


def _analyse_content(primary: dict[str, Any], replicas: dict[str, dict[str, Any]]) -> Any:
    """Digests say something only about nodes at the same position."""
    expected = primary["content"]
    comparable = {name: answer["content"] for name, answer in replicas.items() if "error" not in answer["content"]}
    comparable = {name: content for name, content in comparable.items() if content["at"] == expected.get("at")}
    diverged = [name for name, content in comparable.items() if content["digest"] != expected["digest"]]
    settled = len(comparable) == len(replicas) and "error" not in expected
    return {"digests_equal": not diverged if settled or diverged else None, "diverged": diverged}


def _behind(answer: dict[str, Any], primary: dict[str, Any]) -> int | None:
    """How many versions a replica is behind; all of them while it is in an earlier epoch; ``None`` when unknown."""
    if "error" in answer or "error" in primary:
        return None
    if answer["epoch"] < primary["epoch"]:
        return max(1, int(primary["version"]))
    return max(0, int(primary["version"]) - int(answer["version"]))


def _status(name: str, answer: dict[str, Any], primary: dict[str, Any], known: Known | None) -> ReplicaStatus:
    behind = _behind(answer, primary)
    diverged = known is not None and known.diverged
    found: ReplicaStatus = {
        "replica_id": name,
        "version": answer.get("version"),
        "is_consistent": behind == 0 and not diverged,
        "version_behind": behind,
        "lag_ms": 0.0 if behind == 0 else None if known is None else known.lag_ms,
        "data_age_ms": answer.get("data_age_ms"),
        "diverged": diverged,
        "faults": [] if known is None else list(known.faults),
        "resyncing": "" if known is None else known.resyncing,
        "order": None if known is None else known.order,
    }
    if "error" in answer:
        found["error"] = answer["error"]
    return found
