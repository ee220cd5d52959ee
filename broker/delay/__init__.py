"""How late a replica is made: one small class per delay model, and how they are read."""

from __future__ import annotations

from typing import Any

from broker.delay.exponential import Exponential
from broker.delay.fixed import Fixed
from broker.delay.lognormal import Lognormal
from broker.delay.mixture import Mixture, mixture
from broker.delay.model import DELAY_MS_MAX, DelayModel, tidy
from broker.delay.pareto import Pareto
from broker.delay.schedule import Order, Schedule
from broker.delay.trace import Trace
from broker.delay.uniform import Uniform

__all__ = [
    "DELAY_MS_MAX",
    "DelayModel",
    "Exponential",
    "Fixed",
    "Lognormal",
    "Mixture",
    "Order",
    "Pareto",
    "Schedule",
    "Trace",
    "Uniform",
    "from_json",
    "tidy",
]
_MODELS: dict[str, Any] = {model.kind: model for model in (Fixed, Uniform, Exponential, Lognormal, Pareto, Trace)}


def from_json(model: Any) -> DelayModel:
    """Read a delay model as ``as_json`` writes it. Raises ``ValueError`` with a sentence for anything else."""
    if not isinstance(model, dict) or not isinstance(model.get("kind"), str):
        raise ValueError('a delay model looks like {"kind": "fixed", "ms": 500}')
    parameters = {name: value for name, value in model.items() if name != "kind"}
    if model["kind"] == Mixture.kind:
        return mixture(parameters, from_json)
    if model["kind"] not in _MODELS:
        raise ValueError(f"kind is one of {', '.join([*_MODELS, Mixture.kind])}, not {model['kind'][:40]!r}")
    found: DelayModel = _MODELS[model["kind"]].from_parameters(parameters)
    return found
