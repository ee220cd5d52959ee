"""Experiments in the format of the client."""

from typing import Any

from nodes.experiments.spec import Experiment

VERSIONS = {"lab": "0.1.0", "rq": "3.0.0"}


def experiment(kind: str, result: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A finished experiment."""
    return {
        "id": "3f2c9a1b7d40",
        "kind": kind,
        "state": "finished",
        "progress": 1.0,
        "reason": None,
        "submitted_at": "2026-11-23T13:46:00.000000Z",
        "started_at": "2026-11-23T13:46:01.000000Z",
        "ended_at": "2026-11-23T13:46:02.000000Z",
        "spec": {"kind": kind, "seed": 0, "settings": {}},
        "result": None if result is None else {**result, "versions": VERSIONS},
        **more,
    }


def spread(middle: float, count: int = 3) -> dict[str, Any]:
    """Percentiles around a value."""
    return {
        "count": count, "min": middle - 1, "p50": middle, "p95": middle + 1, "p99": middle + 2, "max": middle + 3
    }  # fmt: skip


WINDOWS = {
    "window_ms": spread(1500.0),
    "timeouts": 1,
    "errors": 0,
    "error": None,
    "applied_after_ms": {"r1": spread(500.0)},
    "converged": {"t_ms": [0.0, 1500.5, 1800.0], "measured": [0, 0.5, 1], "predicted": [0, 1, 1], "rmse": 0.28868},
    "raw": {"window_ms": [1500.0, 1501.0, None], "applied_after_ms": {"r1": [500.0]}},
}
CURVE = {"t_ms": [10.0, 20.0], "reads": [50, 60], "measured": [0.9, 0.5], "predicted": [0.88, 0.52], "rmse": 0.02}
STALENESS = {
    "stale": CURVE,
    "replicas": {"r1": CURVE},
    "reads": 110,
    "errors": 0,
    "error": None,
    "raw": {"replicas": ["r1"], "t_ms": [1.5], "replica": [0], "stale": [1], "version": [7]},
}
LEVELS = {
    "levels": {
        "strong": {"waited_ms": spread(2.0), "stale": 0.0, "own_write": 1.0, "refused": 0, "errors": 0, "error": None},
        "session": {
            "waited_ms": spread(900.0),
            "stale": 0.25,
            "own_write": 1.0,
            "refused": 1,
            "errors": 0,
            "error": "504",
        },
    },
    "raw": {"waited_ms": {"strong": [1.0, 2.0], "session": [900.0]}},
}


QUORUM = {
    "n": 3, "r": 1, "w": 2, "stale": CURVE, "reads": 110, "errors": 0, "error": None,
    "newest": {"k": [1, 2], "reads": 11, "measured": [0.75, 1.0], "predicted": [0.76, 0.99]},
    "write_ms": {"measured": spread(52.0), "predicted": {"p50": 50.0, "p95": 51.0, "p99": 52.0}},
    "read_ms": {"measured": spread(4.0), "predicted": {"p50": 0.0, "p95": 0.0, "p99": 0.0}},
    "raw": {"t_ms": [1.5], "stale": [1], "missing": [0], "write_ms": [52.0], "read_ms": [4.0]},
}  # fmt: skip


def sweep(kind: str, result: dict[str, Any]) -> dict[str, Any]:
    """A sweep over two values of a rate."""
    found = experiment("sweep", {"parameter": "rate", "steps": [{"value": v, "result": result} for v in (5, 10)]})
    found["spec"]["experiment"] = {"kind": kind}
    return found


FINISHED = {
    "windows": experiment("windows", WINDOWS),
    "staleness": experiment("staleness", STALENESS),
    "levels": experiment("levels", LEVELS),
    "quorum": experiment("quorum", QUORUM),
    "sweep of quorum": sweep("quorum", QUORUM),
    "sweep of windows": sweep("windows", WINDOWS),
    "sweep of staleness": sweep("staleness", STALENESS),
    "sweep of levels": sweep("levels", LEVELS),
}


def document(name: str, state: Any) -> Experiment:
    """An experiment in this state, in the client's storage format."""
    return {
        "id": name, "kind": "windows", "state": state, "progress": 0.0, "reason": None, "submitted_at": "",
        "started_at": None, "ended_at": None, "spec": {}, "result": None,
    }  # fmt: skip
