"""Schedules of torture runs."""

import pytest

from broker.delay.models import from_json
from lab.torture.schedule import ALL_FAULTS, DEFAULT_FAULTS, DELAY, DELAY_MS_MIN, draw
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
