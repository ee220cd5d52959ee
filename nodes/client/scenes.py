"""Scenes: a lease on the lab's settings and faults, which are restored when it ends, whatever becomes of its holder."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from typing_extensions import TypedDict

from nodes.client.controls import Controls, DelayChange, Faults, FaultStart
from nodes.client.errors import ClientError, NoSuchScene, NotRestored, SceneRunning
from nodes.client.experiments import Experiments
from nodes.client.log_faults import LOG
from nodes.experiments.queue import ExperimentQueue, Holder
from nodes.http.api import Body, Query
from nodes.http.peers import PeerError, PeerRefused
from nodes.http.times import timestamp
from nodes.runtime.background import Background

LEASE_MS = 10_000
GIVE_UP_SECONDS = 30.0  # on the faults of a replica that does not answer
_LOOK_SECONDS = 0.5
_HOLDER: Holder = "scene"
_MODELS = {
    "model": "models",
    "ack_model": "ack_models",
    "read_model": "read_models",
    "order": "orders",
    "seed": "seeds",
}


class SceneBody(Body):
    name: Annotated[str, Field(min_length=1, max_length=100)]


class LeaseQuery(Query):
    lease_ms: Annotated[int, Field(ge=0, le=60_000, description="until the scene ends without a renewal")] = LEASE_MS


class Scene(TypedDict):
    id: str
    name: str
    started_at: str


class SceneAnswer(TypedDict):
    """The current scene, or ``null``."""

    scene: Scene | None


@dataclass
class Scenes:
    """At most one scene at a time, and none while an experiment is waiting or running. Thread-safe.

    What was before it is stored in the log server, so a restart of the client service restores it too. Methods raise
    ``ClientError``, ``PeerError``, ``PeerRefused`` and ``LogError``; what could not be restored is tried again.
    """

    queue: ExperimentQueue
    experiments: Experiments
    lab: Controls  # with the token of this service
    faults: Faults
    monotonic: Callable[[], float]
    now_us: Callable[[], int]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded = False
        self._held: dict[str, Any] = {}  # the scene, with the settings and faults before it
        self._until = 0.0
        self._keeper = Background("scenes", self._keep, expected=(ClientError, PeerError, PeerRefused))
        self.start = self._keeper.start
        self.stop = self._keeper.stop

    def current(self) -> SceneAnswer:
        """The scene that is running, if any."""
        return {"scene": _scene(self._held) if self._held else None}

    def begin(self, body: SceneBody) -> Scene:
        with self._lock, self.experiments.excluded():
            self._load()
            if self._held:
                raise SceneRunning(f"Scene {self._held['name']!r} is running; end it, or retry later")
            settings, faults = _settings(self.lab.delays()), _known(self.faults.show())
            scene = {"id": uuid.uuid4().hex[:12], "name": body.name, "started_at": timestamp(self.now_us())}
            held = {**scene, "settings": settings, "faults": faults}
            self.queue.hold(held, _HOLDER)
            self._held = held
            self._until = self.monotonic() + LEASE_MS / 1000
            return _scene(held)

    def renew(self, name: str, query: LeaseQuery) -> Scene:
        """Renew a scene's lease. A short lease ends the scene soon, but not before requests that were just sent."""
        with self._lock:
            held = self._require(name)
            if self._has_lapsed():
                raise NoSuchScene(f"Scene {held['name']!r} was not renewed in time: it is being restored")
            self._until = self.monotonic() + query.lease_ms / 1000
            return _scene(held)

    def end(self, name: str) -> Scene:
        """End a scene; the answer comes when everything is restored."""
        with self._lock:
            held = self._require(name)
            self._until = min(self._until, self.monotonic())
            self._restore()
            return _scene(held)

    def _require(self, name: str) -> dict[str, Any]:
        self._load()
        if self._held.get("id") != name:
            raise NoSuchScene(f"No scene {name[:100]!r}: it has ended, or was not renewed in time")
        return self._held

    def _load(self) -> None:
        """Find the scene of the last process; its holder has the time of a lease to renew it."""
        if not self._loaded:
            self._held = self.queue.held(_HOLDER)
            self._until = self.monotonic() + LEASE_MS / 1000
            self._loaded = True

    def _keep(self) -> None:
        with self._lock:
            self._load()
            if self._held and self._has_lapsed():
                self._restore()
        self._keeper.pause(_LOOK_SECONDS)

    def _has_lapsed(self) -> bool:
        return self.monotonic() >= self._until

    def _restore(self) -> None:
        now = _settings(self.lab.delays())
        for replica, found in self._held["settings"].items():
            if replica in now and now[replica] != found:  # a removed replica has no settings to restore
                self.lab.change(DelayChange(replica=replica, **found))
        silent = self._restore_faults()
        if silent and self.monotonic() < self._until + GIVE_UP_SECONDS:
            raise NotRestored(f"{', '.join(silent)} does not answer, so its faults are not restored yet")
        self.queue.hold({}, _HOLDER)
        self._held = {}

    def _restore_faults(self) -> list[str]:
        """Restore the faults of each replica; return the replicas that do not answer.

        A master that was isolated before the scene is not isolated again: that would be another failover.
        """
        silent = []
        for replica, answer in self.faults.show()["replicas"].items():
            if "error" in answer:
                silent.append(replica)
                continue
            before, now = self._held["faults"].get(replica, []), answer["faults"]
            for one in now:
                if one not in before:
                    self._end(replica, one["fault"])
            for one in before:
                if one not in now:
                    self._start_again(replica, one)
        if self.faults.log.are_possible and not self._held["faults"].get(LOG):
            self.faults.end_all(LOG)
        return silent

    def _end(self, replica: str, fault: str) -> None:
        try:
            self.faults.end(replica, fault)
        except PeerRefused as refused:
            if refused.status != 404:  # it has ended by itself
                raise

    def _start_again(self, replica: str, fault: dict[str, Any]) -> None:
        parameters = dict(fault["parameters"])
        if fault["until"] is not None:
            left = datetime.fromisoformat(fault["until"]).timestamp() * 1000 - self.now_us() / 1000
            parameters["duration_ms"] = round(left)
            if left < 1:
                return
        self.faults.start(FaultStart(replica=replica, fault=fault["fault"], **parameters))


def _scene(held: dict[str, Any]) -> Scene:
    return {"id": held["id"], "name": held["name"], "started_at": held["started_at"]}


def _settings(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each replica's settings, as the primary accepts them, from its answer, which has them by URL."""
    found = {name: answer[kind] for name, kind in _MODELS.items()}
    return {str(urlsplit(url).hostname): {name: of[url] for name, of in found.items()} for url in answer["models"]}


def _known(answer: Any) -> dict[str, list[dict[str, Any]]]:
    """The active faults of the log server and of each replica that answers; one without a process has none."""
    nodes = {**answer["replicas"], LOG: answer.get("log", {})}
    return {name: found["faults"] for name, found in nodes.items() if "faults" in found}
