"""The least that a primary has to do: Flask, one script call a write, JSON. Started as ``python -m``, like a node.

With ``metrics`` as argument every request is measured as the lab's nodes measure theirs, with ``tracing`` it is traced.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from flask import Flask, request
from prometheus_client import CollectorRegistry

from broker.connection import connect
from nodes.http.app import measure
from nodes.runtime import config as configs
from nodes.runtime import tracing as traces
from nodes.runtime.serving import Service
from nodes.runtime.tracing import CarriedTracing

# The next version, the newest value and the history: the least of which a primary can be made.
SCRIPT = """
local version = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[3], '1-' .. version, 'key', ARGV[1], 'value', ARGV[2])
return version
"""
KEYS = ["bare:version", "bare:data", "bare:log"]


class _Nothing:
    """No background threads."""

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Nothing to do."""


def create_app(config: configs.NodeConfig, *also: str) -> Flask:
    """The app, served by the same gunicorn settings as the lab's nodes; ``also``: what it has of what they have."""
    app = Flask("bare")
    script: Any = connect(config.redis_url, max_connections=config.threads + 16).register_script(SCRIPT)

    @app.post("/data")
    def write() -> dict[str, Any]:
        body = request.get_json()
        version = script(keys=KEYS, args=[body["key"], body["value"]])
        return {"version": version, "key": body["key"], "value": body["value"]}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    tracing = traces.make(config) if "tracing" in also else CarriedTracing()
    tracing.install(app)
    if "metrics" in also:
        measure(app, CollectorRegistry())
    app.extensions |= {"node": _Nothing(), "tracing": tracing}
    return app


if __name__ == "__main__":
    found = configs.load("primary", os.environ)
    Service(found, lambda config: create_app(config, *sys.argv[1:])).run()
