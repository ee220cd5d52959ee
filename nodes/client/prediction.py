"""What the current delays predict, to compare with what is measured."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from broker.delay import DELAY_MS_MAX, from_json
from broker.delay.prediction import Replicated, predict
from nodes.client.errors import NoReplicas
from nodes.http.api import Query

_POINTS_MAX = 201
_RATE_MAX = 100_000


class PredictionQuery(Query):
    """For ``writes_per_second``, at ``points`` moments from 0 to ``until_ms`` after a write."""

    writes_per_second: Annotated[float, Field(ge=0, le=_RATE_MAX)] = 0
    until_ms: Annotated[float, Field(gt=0, le=DELAY_MS_MAX)] = 3000
    points: Annotated[int, Field(ge=2, le=_POINTS_MAX)] = 41


class PredictionAnswer(TypedDict):
    """At each ``t_ms`` after a write: P(a read of a random replica is stale), and P(every replica has it)."""

    writes_per_second: float
    t_ms: list[float]
    stale: list[float]
    converged: list[float]


def prediction(delays: dict[str, Any], query: PredictionQuery) -> PredictionAnswer:
    """Predict from the delays as the primary reports them. Raises ``NoReplicas``."""
    rate, last = query.writes_per_second, query.points - 1
    replicated = [Replicated(from_json(model), delays["orders"][url], rate) for url, model in delays["models"].items()]
    if not replicated:
        raise NoReplicas("No replica is registered yet")
    curve = predict(replicated, [query.until_ms * point / last for point in range(query.points)])
    return {
        "writes_per_second": rate,
        "t_ms": curve.t_ms,
        "stale": [round(share, 6) for share in curve.stale],
        "converged": [round(share, 6) for share in curve.converged],
    }
