"""The parts of a primary on a fake log server."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from broker.clock import LogClock
from nodes.http.peers import Peers
from nodes.primary.metrics import PrimaryMetrics
from nodes.primary.parts import Parts
from nodes.runtime.config import PrimaryConfig, load
from nodes.runtime.gate import EMPTY_STATE, PositionGate


def make_parts(log: Any, registry: CollectorRegistry, environment: dict[str, str] | None = None, **parts: Any) -> Parts:
    """Return parts with this log; those that are not given are not used."""
    config = load("primary", environment or {})
    assert isinstance(config, PrimaryConfig)
    unused: dict[str, Any] = {"registered": None, "events": None}
    defaults: dict[str, Any] = {
        "gate": PositionGate(EMPTY_STATE, 10),
        "peers": Peers(2, lambda: 0.0),
        "clock": LogClock(lambda: 0, lambda: 0, lambda: 0),
        "metrics": PrimaryMetrics(registry),
    }
    return Parts(config=config, log=log, **{**unused, **defaults, **parts})
