"""A workload: sessions that write and read through a level, and a record of every operation."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from urllib.parse import urlencode

from broker.delay.models import Order
from broker.position import Position
from lab.checking.history import OPERATIONS_MAX, History, Kind, Operation, Outcome, Plan
from lab.client import NodeUnreachable, call
from lab.errors import LabError

_TIMEOUT_MS = 10_000  # for a read to have its level, or for a write to have its acknowledgements
_ANSWER_SECONDS = 30.0  # longer than a read can wait for its level
_SETTLE_SECONDS = 60.0
_PAUSE_SECONDS = 0.2
_NO_SESSION = -1
SESSIONS_APART = 100_000  # a session that ended goes on as a new one, with a number greater by this
PARAMETERS: dict[str, tuple[str, ...]] = {"bounded": ("max_lag_ms", "max_lag_versions"), "quorum": ("r",)}


@dataclass
class Recorder:
    """Collects the operations of many threads, dated by one clock; at most ``operations_max``."""

    now_us: Callable[[], int]
    operations_max: int = OPERATIONS_MAX
    operations: list[Operation] = field(default_factory=list)
    _index: Iterator[int] = field(default_factory=itertools.count)

    @property
    def full(self) -> bool:
        return len(self.operations) >= self.operations_max

    def add(self, session: int, kind: Kind, outcome: Outcome, invoked_us: int, **found: Any) -> Operation:
        operation = Operation(next(self._index), session, kind, outcome, invoked_us, self.now_us(), **found)
        self.operations.append(operation)
        return operation


class Session:
    def __init__(self, number: int, plan: Plan, client_url: str, keys: list[str], recorder: Recorder) -> None:
        self._number = self._session = number
        self._plan = plan
        self._url = client_url
        self._keys = keys
        self._recorder = recorder
        self._random = Random(f"{plan.seed}-{number}")  # noqa: S311 - repeatable, not secret
        self._written = itertools.count()
        self._token: str | None = None
        given = {name: getattr(plan, name) for name in PARAMETERS.get(plan.level, ())}
        bounds = {name: value for name, value in given.items() if value is not None}
        self._query = urlencode({"level": plan.level, "timeout_ms": _TIMEOUT_MS, **bounds})
        self._acks = "" if plan.w is None else f"?{urlencode({'acks': plan.w, 'timeout_ms': _TIMEOUT_MS})}"

    def step(self) -> None:
        key = self._random.choice(self._keys)
        kind: Kind = "write" if self._random.random() < self._plan.write_share else "read"
        known = {"key": key} if kind == "read" else {"key": key, "value": f"{self._number}-{next(self._written)}"}
        invoked_us = self._recorder.now_us()
        status, found = self._ask(kind, known)
        outcome, more = _written(status, found) if kind == "write" else _read(key, found)
        self._recorder.add(self._session, kind, outcome, invoked_us, **known | more)
        # A rejected token, such as after a reset or a failover, ends the session; the next operation starts another.
        self._session += SESSIONS_APART * (status == 412)
        self._token = None if status == 412 else found.get("token", self._token)
        if not found:
            time.sleep(_PAUSE_SECONDS)

    def _ask(self, kind: Kind, known: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {"Lab-Position": self._token} if self._plan.level == "session" and self._token else {}
        try:
            if kind == "write":
                url = f"{self._url}/write{self._acks}"
                return call("POST", url, known, headers=headers, timeout_seconds=_ANSWER_SECONDS)
            url = f"{self._url}/read/{known['key']}?{self._query}"
            return call("GET", url, headers=headers, timeout_seconds=_ANSWER_SECONDS)
        except NodeUnreachable:
            return 0, {}


def _written(status: int, found: dict[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    if status == 200:
        position = Position.parse(found["position"])
        return "ok", {"position": position, "version": position.version, "acks": found.get("acks_reached")}
    return ("fail" if found.get("outcome") == "not_applied" else "unknown"), {}


def _read(key: str, found: dict[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    if "source" not in found:
        return "fail", {}
    known = {"key": key, "value": found.get("value"), "version": found["version"], "waited_ms": found["waited_ms"]}
    return "ok", {**known, "position": Position.parse(found["position"]), "node": found["source"]}


def run(plan: Plan, client_url: str, run_id: str, *, stop: threading.Event, on_step: Callable[[int], None]) -> History:
    """Run until the time is up or ``stop`` is set, and await convergence. ``run_id`` makes the keys unique."""
    recorder = Recorder(lambda: time.monotonic_ns() // 1000)
    before = _replicas(client_url)
    if len(before) < max(plan.r or 0, plan.w or 0):
        raise LabError(f"r={plan.r} and w={plan.w} need as many replicas; {len(before)} are registered")
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
    after = _replicas(client_url)
    order: Order = "arrival" if "arrival" in {*before.values(), *after.values()} else "log"
    return History(replace(plan, order=order, n=len(before | after)), recorder.operations)


def _replicas(client_url: str) -> dict[str, Order]:
    """Return the order of each registered replica; nothing without a response."""
    try:
        _, found = call("GET", f"{client_url}/status", timeout_seconds=_ANSWER_SECONDS)
    except NodeUnreachable:
        return {}
    return {replica["replica_id"]: replica["order"] for replica in found.get("replicas", [])}


def record_end(client_url: str, keys: list[str], recorder: Recorder, stop: threading.Event) -> None:
    """Record the end state once the nodes have converged: all digests, and the primary's value of each key."""
    nodes: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        invoked_us = recorder.now_us()
        try:
            _, found = call("GET", f"{client_url}/read-compare?digest=true", timeout_seconds=_ANSWER_SECONDS)
            nodes = {"primary": found["primary"], **found["replicas"]}
            settled = found["analysis"]["digests_equal"] is not None
        except (NodeUnreachable, KeyError):
            settled = False
        if settled or stop.wait(_PAUSE_SECONDS):
            break
    for node, answer in nodes.items():
        content = answer.get("content", {})
        if content.get("digest") is None:
            recorder.add(_NO_SESSION, "digest", "unknown", invoked_us, node=node)
        else:
            at = Position.parse(content["at"])
            recorder.add(_NO_SESSION, "digest", "ok", invoked_us, node=node, position=at, digest=content["digest"])
    for key in keys:
        invoked_us = recorder.now_us()
        try:
            outcome, more = _read(key, call("GET", f"{client_url}/read/{key}?level=strong")[1])
        except NodeUnreachable:
            continue
        if outcome == "ok":
            recorder.add(_NO_SESSION, "final", "ok", invoked_us, **more)
