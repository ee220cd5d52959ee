"""The schedule of a torture run: acts and their times, drawn from a seed so that a run can be repeated."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, get_args

from broker.delay.models import Fixed, Uniform
from nodes.client.log_faults import ISOLATE, LOG, LogFaultName
from nodes.replica.faults import FAULTS

DELAY = "delay"
PROCESS_FAULTS = ("kill", "hang")
LOG_FAULTS = get_args(LogFaultName)  # of a log with Sentinels
ALL_FAULTS = (*PROCESS_FAULTS, *FAULTS, *LOG_FAULTS)
# A fault that breaks guarantees is injected only on request; the verdict then has to report it.
DEFAULT_FAULTS = (*PROCESS_FAULTS, *(name for name, kind in FAULTS.items() if not kind.breaks_guarantees))
DELAY_MS_MIN = 100
_FIRST_MS, _LAST_MS = 1000, 2000
_GAP_MS = (500, 1700)
_DELAY_SHARE = 0.25
_WEIGHTS = {"kill": 3, **dict.fromkeys(LOG_FAULTS, 2)}
_HANG_MS = (200, 3500)
_HANG_SENTINEL_MS = (200, 1500)  # after 2 s it would do nothing for 30 s, and two such ones prevent every failover
_ISOLATION_MS = (2000, 6000)  # it is replaced after 2 s


@dataclass(frozen=True)
class Act:
    """A fault of a process, a replica or the log, or a change of a replica's delay, ``at_ms`` after the start."""

    at_ms: int
    kind: str
    target: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        given = f" {json.dumps(self.parameters)}" if self.parameters else ""
        return f"{self.at_ms / 1000:8.3f} s  {self.kind} {self.target}{given}"


def draw(
    seed: int, seconds: float, processes: Iterable[str], replicas: Iterable[str], faults: Iterable[str]
) -> list[Act]:
    """Return a schedule in time order; equal arguments give equal schedules."""
    random = Random(f"torture-{seed}")  # noqa: S311 - repeatable, not secret
    processes, replicas, kinds = sorted(processes), sorted(replicas), sorted(set(faults))
    weights = [_WEIGHTS.get(kind, 1) for kind in kinds]
    acts: list[Act] = []
    at_ms = _FIRST_MS
    while at_ms < seconds * 1000 - _LAST_MS:
        if not kinds or random.random() < _DELAY_SHARE:
            acts.append(Act(at_ms, DELAY, random.choice(replicas), {"model": _model(random)}))
        else:
            (kind,) = random.choices(kinds, weights)
            target = LOG if kind in LOG_FAULTS else random.choice(processes if kind in PROCESS_FAULTS else replicas)
            acts.append(Act(at_ms, kind, target, _parameters(kind, target, random)))
        at_ms += random.randint(*_GAP_MS)
    return acts


def _model(random: Random) -> dict[str, Any]:
    low_ms = random.randint(DELAY_MS_MIN, 500)
    model = random.choice([Fixed(low_ms), Fixed(low_ms * 3), Uniform(low_ms, low_ms + random.randint(1, 1000))])
    return model.as_json()


def _parameters(kind: str, target: str, random: Random) -> dict[str, Any]:
    if kind == "hang":
        return {"duration_ms": random.randint(*_HANG_SENTINEL_MS if "sentinel" in target else _HANG_MS)}
    if kind == ISOLATE:
        return {"duration_ms": random.randint(*_ISOLATION_MS)}
    if kind not in FAULTS:
        return {}
    fault = FAULTS[kind]
    drawn: dict[str, Any] = {name: random.choice(values) for name, values in fault.drawn.items()}
    return drawn if fault.momentary else {**drawn, "duration_ms": random.randint(300, 4000)}
