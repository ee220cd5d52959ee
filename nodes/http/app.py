"""What every node's app has: guarded endpoints, problem details, metrics, traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from flask import Flask
from prometheus_client import CollectorRegistry
from typing_extensions import TypedDict

from nodes.http import guard, problem
from nodes.http.api import Api
from nodes.runtime import metrics
from nodes.runtime.config import NodeConfig
from nodes.runtime.tracing import Tracing


class HealthAnswer(TypedDict):
    """Whether a node can do its work; ``checks``: what it looked at, each ``ok`` or what is wrong."""

    status: Literal["ok", "degraded"]
    service: str
    role: str
    checks: dict[str, str]


def make_app(config: NodeConfig, tracing: Tracing, registry: CollectorRegistry) -> tuple[Flask, Api]:
    """An app without endpoints of its own, and the means to add them."""
    app = Flask(config.node_id, static_folder=None)
    problem.install(app)
    guard.install(app, config)
    metrics.install(app, registry)
    tracing.install(app)
    app.extensions["tracing"] = tracing
    return app, Api(app, config.node_id, f"Eventual consistency lab: {config.role}")


def add_health(api: Api, config: NodeConfig, check: Callable[[], dict[str, str]]) -> None:
    """Add ``GET /health``, which is 503 while any check is not ``ok``."""

    @api.route("GET", "/health", admin=False, answer=HealthAnswer, also={503: HealthAnswer})
    def health() -> Any:
        """Whether this node can do its work, and what is wrong where it cannot."""
        checks = check()
        healthy = all(state == "ok" for state in checks.values())
        body = {
            "status": "ok" if healthy else "degraded",
            "service": config.node_id,
            "role": config.role,
            "checks": checks,
        }
        return api.reply(body, 200 if healthy else 503)
