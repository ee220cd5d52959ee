"""Scenes: what was before a scene is restored when it ends, lapses, or its process restarts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fakeredis
import pytest

from broker.errors import LogUnreachable
from nodes.client.controls import Controls, Faults
from nodes.client.directory import Directory
from nodes.client.errors import ExperimentRunning, NoSuchScene, NotRestored, SceneRunning
from nodes.client.experiments import Experiments, ExperimentStore
from nodes.client.scenes import GIVE_UP_SECONDS, LeaseQuery, SceneBody, Scenes
from nodes.experiments.queue import ExperimentQueue
from nodes.experiments.spec import ExperimentBody
from nodes.http.peers import Ask, PeerError, PeerRefused, Reply
from tests.support.clock import FakeClock
from tests.support.peers import PRIMARY, StubPeers, replicas
from tests.support.problems import answered

KINDS = {"model": "models", "ack_model": "ack_models", "read_model": "read_models", "order": "orders", "seed": "seeds"}
BEFORE = {
    "model": {"kind": "fixed", "ms": 500.0},
    "ack_model": {"kind": "fixed", "ms": 0.0},
    "read_model": {"kind": "uniform", "low_ms": 1.0, "high_ms": 2.0},
    "order": "arrival",
    "seed": 7,
}
CHANGED = {**BEFORE, "model": {"kind": "fixed", "ms": 4000.0}, "order": "log", "seed": 8}
NOW_US = 1767225600 * 10**6  # 2026-01-01


def fault(name: str, until: str | None = None, **parameters: Any) -> dict[str, Any]:
    return {"fault": name, "parameters": parameters, "since": "2025-12-31T23:59:59Z", "until": until}


class StubLab(StubPeers):
    """Two replicas with settings and faults, which change as requested."""

    def __init__(self) -> None:
        super().__init__(**{"primary/replicas": replicas("r1", "r2")})
        self.settings: dict[str, dict[str, Any]] = {"r1": dict(BEFORE), "r2": dict(BEFORE)}
        self.faults: dict[str, list[dict[str, Any]]] = {"r1": [], "r2": []}
        self.changes: list[Any] = []
        self.silent: set[str] = set()

    def ask(self, ask: Ask) -> Reply:
        host, _, path = ask.url.removeprefix("http://").replace("127.0.0.1:8000", "primary").partition("/")
        if host in self.silent:
            raise PeerError(f"{host} is silent", sent=False)
        if not path.startswith("admin"):
            return super().ask(ask)
        if ask.method != "GET":
            self.changes.append((host, ask.method, path, ask.body))
        if host == "primary":
            if ask.method == "POST":
                body = dict(ask.body)
                self.settings[body.pop("replica")] |= body
            urls = {f"http://{name}:8001": found for name, found in self.settings.items()}
            answer: Any = {kind: {url: of[name] for url, of in urls.items()} for name, kind in KINDS.items()}
        else:
            answer = {"faults": list(self.faults[host])}
            if ask.method == "DELETE":
                name = path.rpartition("/")[2]
                kept = [one for one in self.faults[host] if one["fault"] != name]
                if len(kept) == len(self.faults[host]):
                    return Reply(404, {"detail": "not active"}, 1.0)
                self.faults[host] = kept
            if ask.method == "POST":
                body = dict(ask.body)
                self.faults[host].append({"fault": body.pop("fault"), "parameters": body, "since": "later"})
        return Reply(200, answer, 1.0)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.lab, self.clock = StubLab(), FakeClock()
        self.log = Mock(are_possible=False)
        self.queue = ExperimentQueue(fakeredis.FakeRedis(protocol=2))
        self.experiments = Experiments(self.queue, ExperimentStore(directory))
        self.scenes = self.process()

    def process(self) -> Scenes:
        controls = Controls(self.lab, PRIMARY, lambda: "Bearer t")
        faults = Faults(self.lab, Directory(self.lab, PRIMARY), None, self.log)
        return Scenes(self.queue, self.experiments, controls, faults, lambda: self.clock.us / 1e6, lambda: NOW_US)

    def begin(self) -> str:
        return self.scenes.begin(SceneBody(name="A scene"))["id"]

    def step(self, scenes: Scenes | None = None) -> None:
        """One step of the keeper."""
        found = scenes or self.scenes
        found.stop()  # its pause returns at once
        found._keep()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@contextmanager
def refused(kind: type[Exception], status: int) -> Iterator[None]:
    with pytest.raises(kind) as raised:
        yield
    assert answered(raised.value).status == status


def test_the_end_of_a_scene_restores_only_what_changed(bench: Bench) -> None:
    name = bench.begin()
    bench.lab.settings["r2"] |= CHANGED
    bench.lab.faults["r1"].append(fault("pause"))
    ended = bench.scenes.end(name)
    assert (ended["id"], ended["name"], ended["started_at"]) == (name, "A scene", "2026-01-01T00:00:00.000000Z")
    assert bench.lab.changes == [
        ("primary", "POST", "admin/replication-delay", {"replica": "r2", **BEFORE}),
        ("r1", "DELETE", "admin/faults/pause", None),
    ]
    assert (bench.scenes.current(), bench.queue.held("scene")) == ({"scene": None}, {})
    with refused(NoSuchScene, 404):
        bench.scenes.end(name)


def test_faults_that_the_scene_ended_start_again_for_the_rest_of_their_duration(bench: Bench) -> None:
    before = [
        fault("partition"),
        fault("skew", skew_ms=300),
        fault("pause", "2026-01-01T00:00:02Z", duration_ms=5000),
        fault("slow_apply", "2026-01-01T00:00:00Z", duration_ms=1000),
    ]
    bench.lab.faults["r1"] = before
    name = bench.begin()
    bench.lab.faults["r1"] = [before[0], fault("skew", skew_ms=5)]
    bench.scenes.end(name)
    assert [(method, path, body) for _, method, path, body in bench.lab.changes] == [
        ("DELETE", "admin/faults/skew", None),
        ("POST", "admin/faults", {"fault": "skew", "skew_ms": 300}),
        ("POST", "admin/faults", {"fault": "pause", "duration_ms": 2000}),
    ]


@pytest.mark.parametrize(("before", "healed"), [([], True), ([fault("isolate-master", master="m")], False)])
def test_the_log_server_is_healed_unless_it_was_isolated_before_the_scene(
    bench: Bench, before: list[Any], healed: bool
) -> None:
    bench.log.are_possible = True
    bench.log.show.return_value = {"faults": before, "available": []}
    name = bench.begin()
    bench.log.show.return_value = {"faults": [fault("isolate-master", master="m")], "available": []}
    bench.scenes.end(name)
    assert bench.log.end.called == healed
    bench.log.start.assert_not_called()


def test_a_scene_that_lapses_heals_the_log_server(bench: Bench) -> None:
    bench.log.are_possible = True
    bench.log.show.return_value = {"faults": [], "available": []}
    bench.begin()
    bench.log.end.side_effect = [LogUnreachable("no Sentinel can be reached"), []]
    bench.clock.advance_ms(10_000)
    with pytest.raises(LogUnreachable):
        bench.step()
    assert bench.scenes.current()["scene"] is not None
    bench.step()
    assert (bench.log.end.call_count, bench.scenes.current()["scene"]) == (2, None)


def test_a_scene_that_is_not_renewed_ends(bench: Bench) -> None:
    name = bench.begin()
    bench.lab.settings["r1"] |= CHANGED
    bench.clock.advance_ms(9_000)
    bench.scenes.renew(name, LeaseQuery())
    bench.clock.advance_ms(9_000)
    bench.step()
    assert bench.lab.settings["r1"] == CHANGED
    bench.clock.advance_ms(1_000)
    with refused(NoSuchScene, 404):
        bench.scenes.renew(name, LeaseQuery())
    bench.step()
    assert (bench.lab.settings["r1"], bench.scenes.current()) == (BEFORE, {"scene": None})


def test_a_short_lease_ends_a_scene_soon(bench: Bench) -> None:
    name = bench.begin()
    bench.scenes.renew(name, LeaseQuery(lease_ms=1000))
    bench.step()
    assert bench.scenes.current()["scene"] is not None
    bench.clock.advance_ms(1_000)
    bench.step()
    assert bench.scenes.current()["scene"] is None


def test_a_scene_outlives_the_process_by_one_lease(bench: Bench) -> None:
    name = bench.begin()
    bench.lab.settings["r1"] |= CHANGED
    bench.clock.advance_ms(100_000)
    kept, lapsed = bench.process(), bench.process()
    bench.step(lapsed)
    assert kept.renew(name, LeaseQuery())["id"] == name
    assert bench.lab.settings["r1"] == CHANGED
    bench.clock.advance_ms(10_000)
    bench.step(lapsed)
    assert bench.lab.settings["r1"] == BEFORE


def test_there_is_one_scene_at_a_time_and_no_experiment_beside_it(bench: Bench) -> None:
    name = bench.begin()
    with refused(SceneRunning, 409):
        bench.begin()
    experiment = ExperimentBody.model_validate({"kind": "windows"})
    with refused(SceneRunning, 409):
        bench.experiments.submit(experiment)
    bench.scenes.end(name)
    found = bench.experiments.submit(experiment)
    with refused(ExperimentRunning, 409):
        bench.begin()
    bench.experiments.cancel(found["id"])
    bench.begin()


def test_what_cannot_be_restored_is_tried_again(bench: Bench) -> None:
    name = bench.begin()
    bench.lab.settings["r1"] |= CHANGED
    bench.lab.faults["r2"].append(fault("pause"))
    bench.lab.silent = {"primary"}
    with pytest.raises(PeerError):
        bench.scenes.end(name)
    with refused(SceneRunning, 409):
        bench.begin()
    bench.lab.silent = {"r2"}
    with refused(NotRestored, 503):
        bench.step()
    assert bench.lab.settings["r1"] == BEFORE
    bench.lab.silent = set()
    bench.step()
    assert (bench.lab.faults["r2"], bench.scenes.current()) == ([], {"scene": None})


def test_a_replica_that_stays_silent_does_not_keep_a_scene_forever(bench: Bench) -> None:
    name = bench.begin()
    bench.lab.silent = {"r2"}
    with refused(NotRestored, 503):
        bench.scenes.end(name)
    bench.clock.advance_ms(GIVE_UP_SECONDS * 1000)
    bench.scenes.end(name)
    assert bench.scenes.current() == {"scene": None}


def test_a_fault_that_ends_by_itself_and_a_removed_replica_are_no_error(bench: Bench) -> None:
    name = bench.begin()
    bench.lab.settings.pop("r2")
    listed = [fault("pause")]
    bench.lab.faults["r1"] = listed

    def ask(ask: Ask, former: Any = bench.lab.ask) -> Reply:
        reply: Reply = former(ask)
        listed.clear()
        return reply

    bench.lab.ask = ask  # type: ignore[method-assign]
    bench.scenes.end(name)
    assert bench.scenes.current() == {"scene": None}


def test_another_refusal_of_a_fault_is_an_error(bench: Bench) -> None:
    name = bench.begin()
    bench.lab.faults["r1"].append(fault("pause"))

    def ask(ask: Ask, former: Any = bench.lab.ask) -> Reply:
        return Reply(401, {"detail": "no"}, 1.0) if ask.method == "DELETE" else former(ask)

    bench.lab.ask = ask  # type: ignore[method-assign]
    with pytest.raises(PeerRefused):
        bench.scenes.end(name)
    assert bench.scenes.current()["scene"] is not None
