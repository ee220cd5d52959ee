"""Sessions on a store, as its users have them: their reads go over the nodes by a route, and the checkers judge them.

Each session is the only writer of its key, and all versions are from one counter, drawn when the write is invoked. So
the versions of a key are in the order of its writes, and a write has a higher one than all that returned before.
"""

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from random import Random
from typing import Literal, NamedTuple, get_args

from lab.checking.history import History, Plan
from lab.checking.workload import Recorder
from lab.probe.instrument import Limits, settings_of
from lab.probe.steps import Course, Operations, created, first_number, run_all
from lab.probe.target import NotNow, Target

Route = Literal["round-robin", "sticky", "primary-writes"]
ROUTES: tuple[Route, ...] = get_args(Route)
WRITE_SHARE = 0.3
_NO_SESSION = -1
_SETTLE_SECONDS = 0.05  # between two looks at whether all nodes are equal
Open = Callable[[], Target]


def reads_of(route: Route, session: int, replicas: int) -> Iterator[int]:
    """Return the node of each read of a session: 0 is the primary, which has all writes, and others are replicas."""
    nodes = range(1 if route == "primary-writes" and replicas else 0, replicas + 1)
    if route == "sticky":
        return itertools.repeat(nodes[session % len(nodes)])
    return itertools.islice(itertools.cycle(nodes), session, None)


class Shared(Course):
    """What the sessions share. ``version``: that of a key's next write."""

    def __init__(self, plan: Plan, limits: Limits, now: Callable[[], float], version: Callable[[str], int]) -> None:
        super().__init__(now)
        self.limits, self.version = limits, version
        self.keys = [f"k{number:04}" for number in range(1, plan.keys + 1)]
        self.until = now() + plan.seconds
        share = plan.write_share
        per_second = min(limits.writes_per_second / share, limits.reads_per_second / (1 - share))
        self.gap_seconds = plan.sessions / per_second  # between two operations of a session
        self.base = first_number() - 1  # of the numbers in the store, for version 0
        self.recorder = Recorder(lambda: int(now() * 1e6))
        self.writes_left = iter(range(limits.writes))
        self._operations: dict[tuple[str, str], Operations] = {}

    def operations(self, node: Target, kind: str) -> Operations:
        """The operations of all sessions on a node: one session has too few to end a run."""
        return self._operations.setdefault((node.name, kind), Operations(node.name, kind))

    def shown(self, node: Target, keys: Sequence[str]) -> tuple[dict[str, int], bool]:
        """Return the versions of the keys, without those that an earlier run has left behind, and the node's role."""
        found = node.read(keys)
        return {key: max(0, found.numbers.get(key, 0) - self.base) for key in keys}, found.is_replica


class Session:
    """One operation for each step. Reads are of the keys of all sessions."""

    def __init__(self, number: int, plan: Plan, route: Route, nodes: Sequence[Target], shared: Shared) -> None:
        self._number, self._plan, self._nodes, self._shared = number, plan, nodes, shared
        self._random = Random(f"{plan.seed}-{number}")  # noqa: S311 - repeatable, not secret
        self._reads = reads_of(route, number, len(nodes) - 1)
        self._writes = shared.operations(nodes[0], "writes")
        self._operations = [shared.operations(node, "reads") for node in nodes]

    def step(self) -> float | None:
        if self._shared.now() >= self._shared.until:
            return None
        if self._random.random() < self._plan.write_share:
            if next(self._shared.writes_left, None) is None:
                return None
            self._write(self._shared.keys[self._number])
        else:
            self._read(self._random.choice(self._shared.keys), next(self._reads))
        return self._shared.now() + self._random.uniform(0.5, 1.5) * self._shared.gap_seconds

    def _write(self, key: str) -> None:
        recorder = self._shared.recorder
        invoked_us = recorder.now_us()
        version = self._shared.version(key)  # not earlier: a write that returned in between would have a higher one
        known = {"key": key, "value": str(version)}
        try:
            self._nodes[0].write(key, self._shared.base + version)
        except NotNow as error:
            recorder.add(self._number, "write", "unknown", invoked_us, **known)
            with self._shared.changed:
                self._writes.failed(error)
        else:
            recorder.add(self._number, "write", "ok", invoked_us, **known, version=version)
            self._writes.succeeded(self._shared.now() - invoked_us / 1e6)

    def _read(self, key: str, at: int) -> None:
        recorder, node, operations = self._shared.recorder, self._nodes[at], self._operations[at]
        invoked_us = recorder.now_us()
        try:
            versions, is_replica = self._shared.shown(node, [key])
        except NotNow as error:
            recorder.add(self._number, "read", "fail", invoked_us, key=key, node=node.name)
            with self._shared.changed:
                operations.failed(error)
            return
        recorder.add(self._number, "read", "ok", invoked_us, node=node.name, **_content(key, versions[key]))
        operations.succeeded(self._shared.now() - invoked_us / 1e6)
        operations.require_role(is_replica=is_replica)


def _content(key: str, version: int) -> dict[str, str | int | None]:
    return {"key": key, "version": version, "value": str(version) if version else None}


class End:
    """After the sessions: waits until all nodes are equal, for a while, and records what each of them has."""

    def __init__(self, nodes: Sequence[Target], shared: Shared) -> None:
        self._nodes, self._shared = nodes, shared
        self._give_up: float | None = None

    def step(self) -> float | None:
        now = self._shared.now()
        self._give_up = self._give_up or now + self._shared.limits.give_up_seconds
        invoked_us = self._shared.recorder.now_us()
        found = [self._versions(node) for node in self._nodes]
        if now < self._give_up and (None in found or any(versions != found[0] for versions in found)):
            return now + _SETTLE_SECONDS
        self._record(invoked_us, found)
        return None

    def _versions(self, node: Target) -> dict[str, int] | None:
        try:
            return self._shared.shown(node, self._shared.keys)[0]
        except NotNow:
            return None

    def _record(self, invoked_us: int, found: Sequence[dict[str, int] | None]) -> None:
        add = self._shared.recorder.add
        for node, versions in zip(self._nodes, found, strict=True):
            if versions is None:
                add(_NO_SESSION, "digest", "unknown", invoked_us, node=node.name)
            else:
                digest = hashlib.sha256(json.dumps(versions).encode()).hexdigest()
                add(_NO_SESSION, "digest", "ok", invoked_us, node=node.name, digest=digest)
        for key, version in (found[0] or {}).items():
            add(_NO_SESSION, "final", "ok", invoked_us, node=self._nodes[0].name, **_content(key, version))


class Observed(NamedTuple):
    """``ended``: why the run ended early; ``not_removed``: why something is still in the store. Usually empty."""

    history: History
    ended: str
    not_removed: str


class Observation:
    """A run, whose steps a test can take in simulated time: those of the sessions, then that of the end."""

    def __init__(
        self,
        plan: Plan,
        route: Route,
        limits: Limits,
        now: Callable[[], float] = time.monotonic,
        version: Callable[[str], int] | None = None,
    ) -> None:
        counter = itertools.count(1)
        self._plan, self._route = plan, route
        self.shared = Shared(plan, limits, now, version or (lambda _: next(counter)))

    def session(self, number: int, nodes: Sequence[Target]) -> Session:
        return Session(number, self._plan, self._route, nodes, self.shared)

    def history(self) -> History:
        return History(self._plan, self.shared.recorder.operations)


def run(
    nodes: Sequence[Open],
    plan: Plan,
    route: Route,
    limits: Limits,
    *,
    stop: threading.Event,
    on_step: Callable[[int], None] = lambda _: None,
) -> Observed:
    """Run the plan's sessions, and remove what that created. ``nodes`` make connections: first to the primary.

    Raises ``TargetError`` if nothing was created.
    """
    with ExitStack() as stack:

        def opened() -> list[Target]:
            found = [node() for node in nodes]
            for node in found:
                stack.callback(node.close)
            return found

        own = opened()
        settings_of(own[0], own[1:])
        found, end = Observation(plan, route, limits), Course(time.monotonic)

        def show() -> None:
            on_step(len(found.shared.recorder.operations))

        def observe() -> None:
            run_all([found.session(number, opened()) for number in range(plan.sessions)], found.shared, stop, show)
            if not found.shared.ended:
                run_all([End(own, found.shared)], end, stop, show)

        not_removed = created(own[0], observe)
        return Observed(found.history(), found.shared.ended or end.ended or "", not_removed)
