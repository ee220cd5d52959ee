"""A workload: sessions that write and read through a level, and a record of everything that they did."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any
from urllib.parse import urlencode

from broker.delay import Order
from broker.position import Position
from lab.checking.history import OPERATIONS_MAX, History, Plan
from lab.checking.operation import Kind, Operation, Outcome
from lab.client import NodeUnreachable, call

_READ_TIMEOUT_MS = 10_000
_SETTLE_SECONDS = 60.0
_PAUSE_SECONDS = 0.2
_NOBODY = -1


class Recorder:
    """Collects operations of many threads, dated by one clock. At most ``operations_max``; ``full`` says when."""

    def __init__(self, now_us: Callable[[], int], operations_max: int = OPERATIONS_MAX) -> None:
        self.now_us = now_us
        self.operations: list[Operation] = []
        self._index = itertools.count()
        self._max = operations_max

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        return len(self.operations) >= self._max

    def add(self, session: int, kind: Kind, outcome: Outcome, invoked_us: int, **found: Any) -> None:
        """One operation that has just returned."""
        operation = Operation(next(self._index), session, kind, outcome, invoked_us, self.now_us(), **found)
        self.operations.append(operation)


class Session:
    """One session: a write or a read at a time, through the client service."""

    def __init__(self, number: int, plan: Plan, client_url: str, keys: list[str], recorder: Recorder) -> None:
        self._number = number
        self._plan = plan
        self._url = client_url
        self._keys = keys
        self._recorder = recorder
        self._random = Random(f"{plan.seed}-{number}")  # noqa: S311 - to be repeated, not to be secret
        self._written = itertools.count()
        self._token: str | None = None
        self._query = _query(plan)

    def step(self) -> None:
        """One operation. A node that does not answer makes the session pause, not end."""
        key = self._random.choice(self._keys)
        try:
            if self._random.random() < self._plan.write_share:
                self._write(key)
            else:
                self._read(key)
        except NodeUnreachable:
            time.sleep(_PAUSE_SECONDS)

    def _headers(self) -> dict[str, str]:
        return {"Lab-Position": self._token} if self._plan.level == "session" and self._token else {}

    def _answered(self, status: int, found: dict[str, Any]) -> None:
        """Go on with the answer's token; start a new session if the lab refused this one's, as after a reset."""
        self._token = None if status == 412 else found.get("token", self._token)

    def _write(self, key: str) -> None:
        value = f"{self._number}-{next(self._written)}"
        invoked_us = self._recorder.now_us()
        known = {"key": key, "value": value}
        try:
            status, found = call("POST", f"{self._url}/write", known, headers=self._headers())
        except NodeUnreachable:
            self._recorder.add(self._number, "write", "unknown", invoked_us, **known)
            raise
        self._answered(status, found)
        if status != 200:
            doubt = found.get("outcome") != "not_applied"
            self._recorder.add(self._number, "write", "unknown" if doubt else "fail", invoked_us, **known)
            return
        position = Position.parse(found["position"])
        self._recorder.add(
            self._number, "write", "ok", invoked_us, **known, position=position, version=position.version
        )

    def _read(self, key: str) -> None:
        invoked_us = self._recorder.now_us()
        try:
            status, found = call(
                "GET", f"{self._url}/read/{key}?{self._query}", headers=self._headers(), timeout_seconds=30
            )
        except NodeUnreachable:
            self._recorder.add(self._number, "read", "fail", invoked_us, key=key)
            raise
        self._answered(status, found)
        if "source" not in found:
            self._recorder.add(self._number, "read", "fail", invoked_us, key=key)
            return
        self._recorder.add(self._number, "read", "ok", invoked_us, **_shown(key, found))


def run(plan: Plan, client_url: str, run_id: str, *, stop: threading.Event, on_step: Callable[[int], None]) -> History:
    """Run the workload until its time is up or it is told to stop, wait for convergence, and return what happened.

    ``run_id`` keeps this run's keys apart from those of others. ``on_step`` hears how many operations there are.
    """
    recorder = Recorder(lambda: time.monotonic_ns() // 1000)
    orders = {_order(client_url)}
    keys = [f"check-{run_id}-{number}" for number in range(plan.keys)]
    deadline = time.monotonic() + plan.seconds

    def live(number: int) -> None:
        session = Session(number, plan, client_url, keys, recorder)
        while not stop.is_set() and time.monotonic() < deadline and not recorder.full:
            session.step()
            on_step(len(recorder.operations))

    with ThreadPoolExecutor(plan.sessions) as threads:
        list(threads.map(live, range(plan.sessions)))
    record_end(client_url, keys, recorder, stop)
    orders.add(_order(client_url))
    return History(replace(plan, order="arrival" if "arrival" in orders else "log"), recorder.operations)


def _order(client_url: str) -> Order:
    """The order in which the replicas apply: that of arrival if any of them does; log order if none answers."""
    try:
        _, found = call("GET", f"{client_url}/status", timeout_seconds=30)
    except NodeUnreachable:
        return "log"
    return "arrival" if any(replica["order"] == "arrival" for replica in found.get("replicas", [])) else "log"


def record_end(client_url: str, keys: list[str], recorder: Recorder, stop: threading.Event) -> None:
    """What every node holds when writes have stopped: each key as the primary has it, and all digests."""
    nodes: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        invoked_us = recorder.now_us()
        try:
            _, found = call("GET", f"{client_url}/read-compare?digest=true", timeout_seconds=30)
            nodes = {"primary": found["primary"], **found["replicas"]}
            settled = found["analysis"]["digests_equal"] is not None
        except (NodeUnreachable, KeyError):
            settled = False
        if settled or stop.wait(_PAUSE_SECONDS):
            break
    for node, answer in nodes.items():
        content = answer.get("content", {})
        if content.get("digest") is None:
            recorder.add(_NOBODY, "digest", "unknown", invoked_us, node=node)
        else:
            at = Position.parse(content["at"])
            recorder.add(_NOBODY, "digest", "ok", invoked_us, node=node, position=at, digest=content["digest"])
    for key in keys:
        invoked_us = recorder.now_us()
        try:
            _, found = call("GET", f"{client_url}/read/{key}?level=strong")
        except NodeUnreachable:
            found = {}
        if "source" in found:
            recorder.add(_NOBODY, "final", "ok", invoked_us, **_shown(key, found))


def _shown(key: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": key,
        "value": found.get("value"),
        "position": Position.parse(found["position"]),
        "version": found["version"],
        "node": found["source"],
        "waited_ms": found["waited_ms"],
    }


def _query(plan: Plan) -> str:
    bounds = {"max_lag_ms": plan.max_lag_ms, "max_lag_versions": plan.max_lag_versions}
    given = {name: value for name, value in bounds.items() if value is not None} if plan.level == "bounded" else {}
    return urlencode({"level": plan.level, "timeout_ms": _READ_TIMEOUT_MS, **given})
