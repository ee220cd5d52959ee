"""The windows experiment: what it counts, from the client's answers."""

from typing import Any

from nodes.worker.windows import Measured


def answer(window_ms: float | None, **replicas: Any) -> dict[str, Any]:
    return {"consistency_time_ms": window_ms, "replicas": replicas}


def test_a_time_that_a_restarted_replica_does_not_know_is_left_out() -> None:
    measured = Measured()
    measured.add(answer(20.0, r1={"applied_after_ms": 10.5}, r2={"applied_after_ms": None}))
    measured.add(answer(30.0, r1={"applied_after_ms": 12.5}, r2={"applied_after_ms": 25.5}))
    measured.add(answer(None, r1={"applied_after_ms": 11.5}, r2={"observed": "timeout"}))
    found: Any = measured.figures()
    assert (found["window_ms"]["count"], found["timeouts"]) == (2, 1)
    counts = {replica: (spread["count"], spread["min"]) for replica, spread in found["applied_after_ms"].items()}
    assert counts == {"r1": (3, 10.5), "r2": (1, 25.5)}
