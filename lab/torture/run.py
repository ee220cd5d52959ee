"""A torture run: load, faults, recovery, and all observations."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from broker.delay.models import Fixed, from_json
from lab.checking import workload
from lab.checking.history import History, Operation, Plan
from lab.checking.workload import Recorder, Session
from lab.client import NodeUnreachable, call
from lab.errors import LabError
from lab.local.layout import NAMESPACE
from lab.torture import losses
from lab.torture.judge import Floors, placed
from lab.torture.ledger import Follower, Ledger
from lab.torture.losses import Losses, Named
from lab.torture.schedule import DELAY, Act
from lab.torture.target import Target
from nodes.http.level import Level
from nodes.replica.faults import SKEW_DRAWN_MS_MAX

SESSIONS: dict[Level, int] = {"strong": 2, "bounded": 2, "session": 3, "prefix": 2, "eventual": 4}
_MAX_LAG_MS = 400
_KEYS = 12
_FIRST_DELAY_MS = 200
_TRIES_SECONDS = 4.0  # for one request to a node that may be restarting
_HEAL_SECONDS = 60.0
_NAMING_SECONDS = 10.0
_PAUSE_SECONDS = 0.2
_STEP_SECONDS = 0.05


@dataclass
class Done:
    act: Act
    refused: str = ""
    at_us: int = 0

    def __str__(self) -> str:
        return f"{self.act}" + (f"  (not done: {self.refused})" if self.refused else "")


@dataclass(frozen=True)
class Record:
    history: History
    ledger: Ledger
    floors: Floors
    losses: Losses
    plans: dict[int, Plan]
    done: list[Done]


@dataclass(frozen=True)
class Order:
    seed: int
    seconds: float
    acts: list[Act]


def run(
    order: Order, target: Target, replicas: Iterable[str], *, stop: threading.Event, on_step: Callable[[int, int], None]
) -> Record:
    """Run the test; ``on_step`` gets the numbers of operations and acts. Raises ``LabError`` without recovery."""
    recorder = Recorder(lambda: time.monotonic_ns() // 1000)
    ahead_ms = SKEW_DRAWN_MS_MAX if any(act.kind == "skew" for act in order.acts) else 0
    floors = Floors(ahead_ms, can_return=target.log_moves)
    injector = Injector(target, floors, recorder.now_us, time.sleep)
    plans = _plans(order)
    run_id = secrets.token_hex(4)
    keys = [f"torture-{run_id}-{number}" for number in range(_KEYS)]
    sessions = [Session(number, plan, target.client_url, keys, recorder) for number, plan in plans.items()]
    over = threading.Event()

    def live(session: Session) -> None:
        while not over.is_set() and not recorder.full:
            session.step()

    with Follower(target.redis_url) as follower, ThreadPoolExecutor(len(sessions)) as threads:
        injector.prepare(replicas)
        running = [threads.submit(live, session) for session in sessions]
        try:
            injector.follow(order, stop, lambda: on_step(len(recorder.operations), len(injector.done)))
        finally:
            injector.resume(all_of_them=True)
            over.set()
        for session in running:
            session.result()
        injector.heal()
        workload.record_end(target.client_url, keys, recorder, threading.Event())
        ledger = follower.finish()
        kept, gone = losses.split(recorder.operations, ledger.lost_at)
        lost = _weighed(kept, gone, ledger, follower, injector)
    plan = Plan("eventual", len(sessions), order.seconds, _KEYS, order.seed)
    return Record(History(plan, placed(kept, ledger)), ledger, floors, lost, plans, injector.done)


def _weighed(
    kept: list[Operation], gone: list[Operation], ledger: Ledger, follower: Follower, injector: "Injector"
) -> Losses:
    """Sort the lost writes, once the primary has had the time to name them."""
    deadline = time.monotonic() + _NAMING_SECONDS
    while True:
        found = losses.weigh(kept, gone, ledger, Named.of(follower.lost()), injector.primary_kills_us())
        if not (found.concealed or found.forgotten) or time.monotonic() > deadline:
            return found
        time.sleep(_PAUSE_SECONDS)


def _plans(order: Order) -> dict[int, Plan]:
    plan = Plan("eventual", seconds=order.seconds, keys=_KEYS, seed=order.seed)
    levels = [level for level, count in SESSIONS.items() for _ in range(count)]
    bounds = {"bounded": _MAX_LAG_MS}
    return {number: replace(plan, level=level, max_lag_ms=bounds.get(level)) for number, level in enumerate(levels)}


class Injector:
    """Injects faults, and records the delays that the replicas can have had."""

    def __init__(
        self, target: Target, floors: Floors, now_us: Callable[[], int], sleep: Callable[[float], object]
    ) -> None:
        self.done: list[Done] = []
        self._target = target
        self._floors = floors
        self._now_us = now_us
        self._sleep = sleep
        self._stopped: list[tuple[float, Callable[[], object]]] = []
        self._delays_ms: dict[str, float] = {}
        self._before: dict[str, dict[str, Any]] = {}

    def prepare(self, replicas: Iterable[str]) -> None:
        found = self._ask("GET", f"{self._target.primary_url}/admin/replication-delays")
        for url, model in found["models"].items():
            self._before[urlsplit(url).hostname or ""] = {"model": model, "order": found["orders"][url]}
        self._delays_ms = {replica: from_json(before["model"]).least_ms for replica, before in self._before.items()}
        for replica in replicas:
            self._set_delay(replica, {"model": Fixed(_FIRST_DELAY_MS).as_json(), "order": "log"})

    def follow(self, order: Order, stop: threading.Event, on_step: Callable[[], None]) -> None:
        """Do each act at its time, or as soon as the one before it is done, until the time is up."""
        acts = deque(order.acts)
        started = time.monotonic()
        while not stop.wait(_STEP_SECONDS) and (passed := time.monotonic() - started) < order.seconds:
            self.resume()
            if acts and acts[0].at_ms <= passed * 1000:
                self.do(acts.popleft())
            on_step()
        self.done += [Done(act, "the time was up") for act in acts]

    def do(self, act: Act) -> None:
        self.resume()
        outcome = Done(act)
        try:
            if act.kind == "kill":
                self._target.kill(act.target)
            elif act.kind == "hang":
                until = time.monotonic() + act.parameters["duration_ms"] / 1000
                self._stopped.append((until, self._target.stop(act.target)))
            elif act.kind == DELAY:
                self._set_delay(act.target, act.parameters)
            else:
                body = {"replica": act.target, "fault": act.kind, **act.parameters}
                self._ask("POST", f"{self._target.client_url}/faults", body)
        except LabError as error:
            outcome.refused = str(error)
        outcome.at_us = self._now_us()
        self.done.append(outcome)

    def primary_kills_us(self) -> list[int]:
        kills = [done for done in self.done if done.act.kind == "kill" and not done.refused]
        return [done.at_us for done in kills if done.act.target == f"{NAMESPACE}-primary"]

    def resume(self, *, all_of_them: bool = False) -> None:
        now = time.monotonic()
        due = [found for found in self._stopped if all_of_them or found[0] <= now]
        self._stopped = [found for found in self._stopped if found not in due]
        for _, resume in due:
            with suppress(LabError):  # the process has been killed in the meantime
                resume()

    def heal(self) -> None:
        """End all faults, await health, and restore the delays. Raises ``LabError`` if a node does not recover."""
        self.resume(all_of_them=True)
        deadline = time.monotonic() + _HEAL_SECONDS
        while not self._healed():
            if time.monotonic() > deadline:
                raise LabError(f"the lab is not healthy {_HEAL_SECONDS:g} s after the last fault")
            self._sleep(_PAUSE_SECONDS)
        for replica, before in self._before.items():
            self._set_delay(replica, before)

    def _healed(self) -> bool:
        try:
            self._target.restart_ended()
            self._ask("POST", f"{self._target.client_url}/faults/reset")
            _, health = call("GET", f"{self._target.client_url}/health")
            _, status = call("GET", f"{self._target.client_url}/status")
            replicas = status.get("replicas", [])
            well = not any("error" in replica or replica["faults"] for replica in replicas)
            return bool(health["status"] == "ok" and replicas and well and self._target.log_is_settled())
        except (NodeUnreachable, LabError, KeyError):
            return False

    def _set_delay(self, replica: str, settings: dict[str, Any]) -> None:
        new_ms = from_json(settings["model"]).least_ms
        self._floors.add(replica, self._now_us(), min(self._delays_ms.get(replica, 0.0), new_ms))
        url = f"{self._target.primary_url}/admin/replication-delay"
        self._ask("POST", url, {"replica": replica, **settings})
        self._delays_ms[replica] = new_ms
        self._floors.add(replica, self._now_us(), new_ms)

    def _ask(self, method: str, url: str, body: Any = None) -> dict[str, Any]:
        """Ask a node, with retries because it may be restarting. Raises ``LabError``."""
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
