"""What the delays in force predict, for whoever wants to hold it against what is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from broker.delay import DELAY_MS_MAX
from broker.delay.prediction import moments, predict, replicated
from nodes.http.api import Api, Query
from nodes.http.problem import Problem

_POINTS_MAX = 201
_RATE_MAX = 100_000


class PredictionQuery(Query):
    """For so many writes a second, at so many moments from 0 to ``until_ms`` after a write."""

    writes_per_second: Annotated[float, Field(ge=0, le=_RATE_MAX)] = 0
    until_ms: Annotated[float, Field(gt=0, le=DELAY_MS_MAX)] = 3000
    points: Annotated[int, Field(ge=2, le=_POINTS_MAX)] = 41


class PredictionAnswer(TypedDict):
    """At each ``t_ms`` after a write: P(a read of a random replica is stale), and P(every replica has it)."""

    writes_per_second: float
    t_ms: list[float]
    stale: list[float]
    converged: list[float]


def add_prediction(api: Api, delays: Callable[[], dict[str, Any]]) -> None:
    """Add the endpoint. ``delays`` says what is in force, as the primary does."""

    @api.route("GET", "/prediction", admin=True, query=PredictionQuery, answer=PredictionAnswer)
    def prediction(query: PredictionQuery) -> PredictionAnswer:
        """How likely a read is stale by the time since the write, from the delays in force alone."""
        replicas = replicated(delays(), query.writes_per_second)
        if not replicas:
            raise Problem(503, "no-replicas", "No replicas", "No replica is registered yet.")
        curve = predict(replicas, moments(query.until_ms, query.points))
        return {
            "writes_per_second": query.writes_per_second,
            "t_ms": curve.t_ms,
            "stale": [round(share, 6) for share in curve.stale],
            "converged": [round(share, 6) for share in curve.converged],
        }
