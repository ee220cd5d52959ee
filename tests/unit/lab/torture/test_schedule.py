"""Schedules of torture runs."""

import hashlib

import pytest

from broker.delay.models import from_json
from lab.torture.schedule import ALL_FAULTS, DEFAULT_FAULTS, DELAY, DELAY_MS_MIN, LOG_FAULTS, draw
from lab.torture.target import native_processes
from nodes.client.log_faults import LOG, LogFault
from nodes.replica.faults import FAULTS

REPLICAS = ["lab14-replica1", "lab14-replica2"]
PROCESSES = [*REPLICAS, "lab14-primary", "lab14-client", "lab14-redis"]


def test_a_seed_determines_the_schedule() -> None:
    one = draw(7, 120, PROCESSES, REPLICAS, DEFAULT_FAULTS)
    assert one == draw(7, 120, reversed(PROCESSES), reversed(REPLICAS), reversed(DEFAULT_FAULTS))
    assert one != draw(8, 120, PROCESSES, REPLICAS, DEFAULT_FAULTS)


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_has_only_the_requested_faults(seed: int) -> None:
    acts = draw(seed, 120, PROCESSES, REPLICAS, ["kill", "pause"])
    assert {act.kind for act in acts} == {"kill", "pause", DELAY}
    assert {act.target for act in acts if act.kind != "kill"} <= set(REPLICAS)
    assert sum(act.kind != DELAY for act in acts) >= 50
    assert [act.at_ms for act in acts] == sorted(act.at_ms for act in acts)
    assert acts[-1].at_ms < 118_000
    for act in acts:
        if act.kind == DELAY:
            model = act.parameters["model"]
            from_json(model)
            assert model.get("ms", model.get("low_ms")) >= DELAY_MS_MIN


def test_every_fault_of_a_replica_is_drawn_with_valid_parameters() -> None:
    assert set(FAULTS) <= set(ALL_FAULTS)
    for act in draw(1, 3000, PROCESSES, REPLICAS, ALL_FAULTS):
        if act.kind in FAULTS:
            FAULTS[act.kind].model_validate({"fault": act.kind, **act.parameters})


def test_a_schedule_is_the_same_in_every_release() -> None:
    acts = draw(14, 60, native_processes(2), REPLICAS, DEFAULT_FAULTS)
    text = "\n".join(map(str, acts))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "615633d3f849e1ff"


@pytest.mark.parametrize("seed", range(5))
def test_a_log_with_sentinels_is_failed_over_and_isolated_and_its_processes_are_killed(seed: int) -> None:
    acts = draw(seed, 300, native_processes(2, ha=True), REPLICAS, (*DEFAULT_FAULTS, *LOG_FAULTS))
    of_log = [act for act in acts if act.target == LOG]
    assert {act.kind for act in of_log} == set(LOG_FAULTS)
    for act in of_log:
        LogFault.model_validate({"replica": LOG, "fault": act.kind, **act.parameters})
    assert all(2000 <= act.parameters["duration_ms"] <= 6000 for act in of_log if act.parameters)
    killed = {act.target for act in acts if act.kind == "kill"}
    assert {"lab14-redis1", "lab14-redis2", "lab14-redis3", "lab14-sentinel1"} <= killed
    hung = [act.parameters["duration_ms"] for act in acts if act.kind == "hang" and "sentinel" in act.target]
    assert max(hung, default=0) <= 1500
