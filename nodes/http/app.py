"""The base of every node's app: guarded endpoints, problem details, metrics, traces, health."""

from collections.abc import Callable
from typing import Any, Literal, NotRequired

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_flask_exporter import PrometheusMetrics
from typing_extensions import TypedDict

from nodes.http import guard, problem
from nodes.http.api import Api
from nodes.http.openapi import Answer
from nodes.runtime.caller import TRACEPARENT
from nodes.runtime.config import NodeConfig
from nodes.runtime.tracing import Tracing


class HealthAnswer(TypedDict):
    """Whether a node can work; ``checks``: the result of each check, ``ok`` or what is wrong.

    ``notices``: what happened in the last minutes that a user must know, and that needs no repair.
    """

    status: Literal["ok", "degraded"]
    service: str
    role: str
    checks: dict[str, str]
    notices: NotRequired[list[str]]


def make_app(config: NodeConfig, tracing: Tracing, registry: CollectorRegistry) -> tuple[Flask, Api]:
    app = Flask(config.node_id, static_folder=None)
    problem.install(app)
    guard.install(app, config)
    measure(app, registry)
    tracing.install(app)
    app.extensions["tracing"] = tracing

    @app.before_request
    def carry() -> None:
        TRACEPARENT.set(request.headers.get("traceparent", ""))

    return app, Api(app, config.node_id, f"Eventual consistency lab: {config.role}")


def measure(app: Flask, registry: CollectorRegistry) -> None:
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    PrometheusMetrics(app, path=None, registry=registry, group_by="url_rule")

    @app.get("/metrics")
    def metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    guard.declare(app, "metrics", admin=False)


def add_health(
    api: Api, config: NodeConfig, check: Callable[[], dict[str, str]], notices: Callable[[], list[str]] = list
) -> None:
    """Add ``GET /health``, which is 503 while any check is not ``ok``."""

    @api.route("GET", "/health", admin=False, answer=Answer(HealthAnswer, also={503: HealthAnswer}))
    def health() -> Any:
        """Whether this node can work, and if not, what is wrong."""
        checks = check()
        healthy = all(state == "ok" for state in checks.values())
        node = {"service": config.node_id, "role": config.role}
        status = "ok" if healthy else "degraded"
        answer: dict[str, Any] = {"status": status, **node, "checks": checks}
        if found := notices():
            answer["notices"] = found
        return api.reply(answer, 200 if healthy else 503)
