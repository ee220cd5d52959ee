"""A torture run: load, acts, healing, and what was seen of it."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from broker.delay import Fixed, from_json
from lab.checking import workload
from lab.checking.history import History, Plan
from lab.checking.workload import Recorder, Session
from lab.client import NodeUnreachable, call
from lab.errors import LabError
from lab.torture import judge
from lab.torture.floor import Floors
from lab.torture.ledger import Follower, Ledger
from lab.torture.schedule import DELAY, SKEW_MS_MAX, Act
from lab.torture.target import Target
from nodes.http.level import Level

SESSIONS: dict[Level, int] = {"strong": 2, "bounded": 2, "session": 3, "prefix": 2, "eventual": 4}
_MAX_LAG_MS = 400
_KEYS = 12
_FIRST_DELAY_MS = 200
_TRIES_SECONDS = 4.0
_HEAL_SECONDS = 60.0
_PAUSE_SECONDS = 0.2
_STEP_SECONDS = 0.05


@dataclass
class Done:
    """An act, and what became of it: ``refused`` says why where it could not be done."""

    act: Act
    refused: str = ""


@dataclass
class Record:
    """Everything that a run has left behind."""

    history: History
    ledger: Ledger
    floors: Floors
    plans: dict[int, Plan]
    done: list[Done] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """What to do: the seed and the schedule drawn from it, and for how long."""

    seed: int
    seconds: float
    acts: list[Act]


def run(
    order: Order, target: Target, replicas: Iterable[str], *, stop: threading.Event, on_step: Callable[[int, int], None]
) -> Record:
    """Do it all and return what was seen. ``on_step`` hears how many operations and acts there were.

    Raises ``LabError`` where the lab does not come back, or its log cannot be read.
    """
    recorder = Recorder(lambda: time.monotonic_ns() // 1000)
    skewed = any(act.kind == "skew" for act in order.acts)
    floors = Floors(SKEW_MS_MAX if skewed else 0)
    torturer = Torturer(target, floors, recorder.now_us, time.sleep)
    plans = _plans(order)
    run_id = secrets.token_hex(4)
    keys = [f"torture-{run_id}-{number}" for number in range(_KEYS)]
    sessions = [Session(number, plan, target.client_url, keys, recorder) for number, plan in plans.items()]
    began = time.monotonic()
    over = threading.Event()

    def live(session: Session) -> None:
        while not over.is_set() and not recorder.full:
            session.step()

    with Follower(target.redis_url) as follower, ThreadPoolExecutor(len(sessions)) as threads:
        torturer.begin(replicas)
        running = [threads.submit(live, session) for session in sessions]
        try:
            _act(torturer, order, began, stop, lambda: on_step(len(recorder.operations), len(torturer.done)))
        finally:
            torturer.go_on(all_of_them=True)
            over.set()
        for session in running:
            session.result()
        torturer.heal()
        workload.record_end(target.client_url, keys, recorder, threading.Event())
        ledger = follower.finish()
    history = History(Plan("eventual", len(sessions), order.seconds, _KEYS, order.seed),
                      judge.placed(recorder.operations, ledger))  # fmt: skip
    return Record(history, ledger, floors, plans, torturer.done)


def _plans(order: Order) -> dict[int, Plan]:
    """What each session does, by its number."""
    levels = [level for level, count in SESSIONS.items() for _ in range(count)]
    plan = Plan("eventual", seconds=order.seconds, keys=_KEYS, seed=order.seed)
    return {
        number: replace(plan, level=level, max_lag_ms=_MAX_LAG_MS if level == "bounded" else None)
        for number, level in enumerate(levels)
    }


def _act(torturer: Torturer, order: Order, began: float, stop: threading.Event, on_step: Callable[[], None]) -> None:
    """Do each act at its time, or as soon after that as the one before has been done, until the time is up."""
    acts = deque(order.acts)
    while not stop.wait(_STEP_SECONDS) and (passed := time.monotonic() - began) < order.seconds:
        torturer.go_on()
        if acts and acts[0].at_ms <= passed * 1000:
            torturer.do(acts.popleft())
        on_step()
    torturer.done += [Done(act, "the time was up") for act in acts]


class Torturer:
    """Does what the schedule says to a lab, and remembers what the replicas' delays may have been."""

    def __init__(
        self, target: Target, floors: Floors, now_us: Callable[[], int], sleep: Callable[[float], object]
    ) -> None:
        self._floors = floors
        self.done: list[Done] = []
        self._target = target
        self._now_us = now_us
        self._sleep = sleep
        self._stopped: list[tuple[float, Callable[[], None]]] = []
        self._delays_ms: dict[str, float] = {}
        self._before: dict[str, dict[str, Any]] = {}

    def begin(self, replicas: Iterable[str]) -> None:
        """Give every replica a delay that is known, in log order, which the judge expects. Raises ``LabError``."""
        found = self._ask("GET", f"{self._target.primary_url}/admin/replication-delays")
        self._before = {
            urlsplit(url).hostname or "": {"model": model, "order": found["orders"][url]}
            for url, model in found["models"].items()
        }
        self._delays_ms = {replica: from_json(before["model"]).least_ms for replica, before in self._before.items()}
        for replica in replicas:
            self._set_delay(Act(0, DELAY, replica, {"model": Fixed(_FIRST_DELAY_MS).as_json(), "order": "log"}))

    def do(self, act: Act) -> None:
        """One act; what it refuses is remembered with it."""
        self.go_on()
        outcome = Done(act)
        try:
            if act.kind == "kill":
                self._target.kill(act.target)
            elif act.kind == "hang":
                until = time.monotonic() + act.parameters["duration_ms"] / 1000
                self._stopped.append((until, self._target.stop(act.target)))
            elif act.kind == DELAY:
                self._set_delay(act)
            else:
                self._begin_fault(act)
        except LabError as error:
            outcome.refused = str(error)
        self.done.append(outcome)

    def go_on(self, *, all_of_them: bool = False) -> None:
        """Let processes go on whose time is up."""
        now = time.monotonic()
        left = []
        for until, go_on in self._stopped:
            if all_of_them or until <= now:
                go_on()
            else:
                left.append((until, go_on))
        self._stopped = left

    def heal(self) -> None:
        """End everything, wait until every node is well, and put the delays back.

        Raises ``LabError`` where a node does not come back.
        """
        self.go_on(all_of_them=True)
        deadline = time.monotonic() + _HEAL_SECONDS
        while True:
            try:
                self._target.start_what_ended()
                self._ask("POST", f"{self._target.client_url}/faults/reset")
                _, health = call("GET", f"{self._target.client_url}/health")
                _, status = call("GET", f"{self._target.client_url}/status")
                replicas = status.get("replicas", [])
                if health["status"] == "ok" and replicas and not any("error" in r or r["faults"] for r in replicas):
                    break
            except (NodeUnreachable, LabError, KeyError):
                pass
            if time.monotonic() > deadline:
                raise LabError(f"the lab is not well {_HEAL_SECONDS:g} s after the last fault")
            self._sleep(_PAUSE_SECONDS)
        for replica, before in self._before.items():
            self._set_delay(Act(0, DELAY, replica, before))

    def _set_delay(self, act: Act) -> None:
        model = act.parameters["model"]
        new_ms = from_json(model).least_ms
        old_ms = self._delays_ms.get(act.target, 0.0)
        self._floors.add(act.target, self._now_us(), min(old_ms, new_ms))
        url = f"{self._target.primary_url}/admin/replication-delay"
        self._ask("POST", url, {"replica": act.target, **act.parameters})
        self._delays_ms[act.target] = new_ms
        self._floors.add(act.target, self._now_us(), new_ms)

    def _begin_fault(self, act: Act) -> None:
        self._ask(
            "POST", f"{self._target.client_url}/faults", {"replica": act.target, "fault": act.kind, **act.parameters}
        )

    def _ask(self, method: str, url: str, body: Any = None) -> dict[str, Any]:
        """Ask a node, which may be being started again. Raises ``LabError`` in the end."""
        deadline = time.monotonic() + _TRIES_SECONDS
        while True:
            try:
                status, found = call(method, url, body, timeout_seconds=5)
                if status < 400:
                    return found
                why = str(found.get("detail"))
            except NodeUnreachable as error:
                why = str(error)
            if time.monotonic() > deadline:
                raise LabError(why)
            self._sleep(_PAUSE_SECONDS)
