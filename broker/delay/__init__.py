"""Delays of replicas: the models, and the schedule that draws from them."""

from broker.delay.mixture import Mixture
from broker.delay.models import (
    DELAY_MS_MAX,
    DelayModel,
    Exponential,
    Fixed,
    Lognormal,
    Pareto,
    Uniform,
    from_json,
    tidy,
)
from broker.delay.schedule import Order, Schedule
from broker.delay.trace import Trace

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
