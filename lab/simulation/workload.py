"""What clients do in the simulated world: they write in batches and alone, and read at every consistency level."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from broker.position import Position
from lab.checking import promises
from lab.checking.history import History, Operation, Plan
from lab.simulation.judges import Judge
from lab.simulation.model import Violation
from lab.simulation.scheduler import Process, Scheduler
from lab.torture.losses import split
from nodes.client.directory import Directory, LogHead
from nodes.client.errors import EarlierEpoch, ReadRefused
from nodes.client.levels import LevelQuery, Nodes
from nodes.client.metrics import ClientMetrics
from nodes.client.reading import Reader
from nodes.client.session import Session
from nodes.http.level import Level
from nodes.http.peers import Ask, PeerError, PeerRefused, Peers, PeersBusy

_BATCHES_PER_SECOND = 2.0
_BATCH = 45  # writes of each on average; the rest of the writes are those of sessions
_KEYS, _SESSION_KEYS = 60, 4
_PARALLEL = 64
_ATTEMPTS = 3
_DELETE_SHARE = 0.3  # of batches that a delete goes along with
_ACKS_SHARE, _WRITE_SHARE = 0.3, 0.4
_PAUSE_SECONDS = 8.0  # between two operations of a session, on average
_SINGLE_SHARE = 0.5  # of the batches: with one write
_READS_BACK_SHARE, _READS_BACK_SECONDS = 0.5, 0.1  # of the writes of a session: it reads the key soon after
LEVELS: tuple[Level, ...] = ("strong", "bounded", "session", "prefix", "quorum", "eventual")
_BOUNDS: dict[Level, dict[str, Any]] = {"quorum": {"r": 2}, "bounded": {"max_lag_ms": 3000.0}}


class Clients:
    """They pause while ``is_paused``. ``check`` judges what their sessions were told since the last check."""

    def __init__(self, scheduler: Scheduler, judge: Judge, process: Process, random: Random, primary_url: str) -> None:
        self._scheduler, self._judge, self._process, self._random = scheduler, judge, process, random
        self._url = primary_url
        self.is_paused = False
        self.is_writable = True
        self.in_progress = 0
        self._numbers = itertools.count(1)
        self._operations: dict[Level, list[Operation]] = {level: [] for level in LEVELS}
        self._checks = 0  # after each, sessions use keys that no client has written before
        self._sessions = itertools.count(1)
        self.outcomes: dict[str, int] = {}
        self.identity: Callable[[str], str] = str  # a node's name, and another one once it has lost its store

    def start(self) -> None:
        """Start in the task of the clients' process."""
        self._peers = Peers(_PARALLEL, self._scheduler.now_seconds)
        directory = Directory(self._peers, self._url)
        head = LogHead(self._peers, self._url)
        nodes = Nodes(self._url, self._peers, directory, head, self._random, self._scheduler.now_seconds)
        self._directory, self._reader = directory, Reader(nodes, ClientMetrics(CollectorRegistry()))
        self._scheduler.spawn(self._write_batches)
        self._scheduler.spawn(self._look_out)
        for level in LEVELS:
            self._scheduler.spawn(partial(self._live, level))

    def _look_out(self) -> None:
        while True:
            self._directory.now()
            self._scheduler.sleep(2)

    # -- writes -------------------------------------------------------------------------------------------------------

    def _write_batches(self) -> None:
        while True:
            self._scheduler.sleep(self._random.expovariate(_BATCHES_PER_SECOND))
            if not self.is_paused:
                self._scheduler.spawn(self._write_batch)
                if self._random.random() < _DELETE_SHARE:
                    self._scheduler.spawn(self._delete)

    def _write_batch(self) -> None:
        is_single = self._random.random() < _SINGLE_SHARE
        count = 1 if is_single else 1 + int(self._random.random() * 2 * _BATCH)
        newest = self._judge.newest
        write_id = f"b{next(self._numbers)}"
        body = [{"key": f"k{self._random.randrange(_KEYS)}", "value": f"{write_id}.{n}"} for n in range(count)]
        found = self._send(Ask(f"{self._url}/data/batch", "POST", body=body, headers={"Idempotency-Key": write_id}))
        results = found.get("results") or [found] * count
        for number, result in enumerate(results, 1):
            outcome = result.get("outcome", "acknowledged")
            self._count(outcome)
            if outcome == "acknowledged":
                self._judge.acknowledged(Position.parse(result["position"]), f"{write_id}-{number}", newest)
            elif outcome == "not_applied":
                self._judge.refused(f"{write_id}-{number}")

    def prove_writable(self) -> None:
        """Write until a write is acknowledged; ``is_writable`` tells whether one is."""
        self.is_writable = False
        self._scheduler.spawn(self._prove_writable, self._process)

    def _prove_writable(self) -> None:
        while not self.is_writable:
            ask = Ask(f"{self._url}/data", "POST", body={"key": "proof", "value": next(self._numbers)})
            self.is_writable = "outcome" not in self._send(ask)

    def _delete(self) -> None:
        """Delete a key, which can be missing."""
        write_id, newest = f"d{next(self._numbers)}", self._judge.newest
        url = f"{self._url}/data/k{self._random.randrange(_KEYS)}"
        found = self._send(Ask(url, "DELETE", headers={"Idempotency-Key": write_id}))
        self._count(found.get("outcome", "acknowledged"))
        if "outcome" not in found:
            self._judge.acknowledged(Position.parse(found["position"]), write_id, newest)

    def _send(self, ask: Ask) -> dict[str, Any]:
        """Send a write; repeat it with the same write id while its outcome is unknown, if at all."""
        self.in_progress += 1
        outcome = "not_applied"
        try:
            for _ in range(1 + int(self._random.random() * _ATTEMPTS)):
                try:
                    return self._peers.require(ask).body
                except PeerRefused as refused:
                    if refused.status == 207:
                        return refused.body
                    if refused.status == 404:  # there is nothing to delete
                        break
                    if refused.body.get("outcome") != "not_applied":
                        outcome = "unknown"
                except PeerError as error:
                    if error.sent:
                        outcome = "unknown"
                self._scheduler.sleep(0.1 + self._random.random())
            return {"outcome": outcome}
        finally:
            self.in_progress -= 1

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    # -- sessions -----------------------------------------------------------------------------------------------------

    def _live(self, level: Level) -> None:
        number, session, lab, key = next(self._sessions), None, "", ""
        while True:
            pause_seconds = (
                _READS_BACK_SECONDS * self._random.random() if key else self._random.expovariate(1 / _PAUSE_SECONDS)
            )
            self._scheduler.sleep(pause_seconds)
            if self.is_paused:
                number, session, key = next(self._sessions), None, ""
                continue
            try:
                lab = lab or self._directory.lab()
                session = session or Session(lab)
                self.in_progress += 1
                try:
                    session, key = self._step(level, number, session, key)
                finally:
                    self.in_progress -= 1
            except (PeerError, PeersBusy):
                key = ""
            except _Ended:
                number, session, key = next(self._sessions), None, ""

    def _step(self, level: Level, number: int, session: Session, reads: str) -> tuple[Session, str]:
        """Write or read, or read this key; return the key if the session reads it next, otherwise an empty text."""
        key = reads or f"{level}{self._checks}.{self._random.randrange(_SESSION_KEYS)}"
        invoked_us = self._scheduler.now_ns // 1000
        if not reads and self._random.random() < _WRITE_SHARE:
            session = self._write(level, number, session, key, invoked_us)
            return session, key if self._random.random() < _READS_BACK_SHARE else ""
        try:
            query = LevelQuery(level=level, timeout_ms=4000, **_BOUNDS.get(level, {}))
            found = self._reader.read(key, query, session)
        except EarlierEpoch:
            raise _Ended from None
        except (ReadRefused, PeerRefused, PeerError, PeersBusy) as refused:
            if getattr(refused, "status", 0) == 412:
                raise _Ended from None
            self._record(level, number, "read", "fail", invoked_us, key=key)
            return session, ""
        position, value, version = Position.parse(found["position"]), found["value"], found["version"]
        shown = {"key": key, "value": value, "version": version, "epoch": self._judge.epoch_of(value, version)}
        node = self.identity(found["source"])
        self._record(level, number, "read", "ok", invoked_us, position=position, node=node, **shown)
        return session.after_read(Position(position.epoch, version)), ""

    def _write(self, level: Level, number: int, session: Session, key: str, invoked_us: int) -> Session:
        write_id, newest = f"s{next(self._numbers)}", self._judge.newest
        waits = level == "quorum" or self._random.random() < _ACKS_SHARE
        query = "?acks=1&timeout_ms=3000" if waits else ""
        ask = Ask(
            f"{self._url}/data{query}", "POST", body={"key": key, "value": write_id},
            headers={"Idempotency-Key": write_id}, wait_ms=3000 if waits else 0,
        )  # fmt: skip
        found = self._send(ask)
        outcome = found.get("outcome", "acknowledged")
        self._count(outcome)
        known: dict[str, Any] = {"key": key, "value": write_id}
        if outcome == "not_applied":
            self._judge.refused(write_id)
        if outcome != "acknowledged":
            self._record(level, number, "write", "fail" if outcome == "not_applied" else "unknown", invoked_us, **known)
            return session
        position = Position.parse(found["position"])
        self._judge.acknowledged(position, write_id, newest)
        self._record(
            level, number, "write", "ok", invoked_us, position=position, version=position.version,
            acks=found.get("acks_reached"), **known,
        )  # fmt: skip
        return session.after_write(position)

    def _record(self, level: Level, number: int, kind: Any, outcome: Any, invoked_us: int, **known: Any) -> None:
        operations = self._operations[level]
        returned_us = self._scheduler.now_ns // 1000
        operations.append(Operation(len(operations), number, kind, outcome, invoked_us, returned_us, **known))
        self._judge.counts[f"{kind}s at level {level}"] += outcome == "ok"

    # -- judging ------------------------------------------------------------------------------------------------------

    def check(self, plan: Plan, lost_at: Callable[[Position], object]) -> None:
        """Judge each level by its sessions, and start new ones. ``plan``: the order and the number of the replicas.

        Raises ``Violation``.
        """
        for level, operations in self._operations.items():
            kept, _ = split(operations, lost_at)
            history = History(replace(plan, level=level, **_BOUNDS.get(level, {})), kept)
            for broken in promises.broken(history.plan, promises.judge(history)):
                raise Violation(f"level {level} promises {broken.guarantee}", broken.words)
            operations.clear()
        self._checks += 1


class _Ended(Exception):
    """Raised when a session's positions are of an earlier epoch: it starts over."""
