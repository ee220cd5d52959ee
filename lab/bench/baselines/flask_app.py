"""A minimal primary: Flask, one script call per write, JSON; optionally the lab's ``metrics`` or ``tracing``."""

import os
import sys
from types import SimpleNamespace
from typing import Any

from flask import Flask, request
from prometheus_client import CollectorRegistry

from broker.connection import connect
from nodes.http.app import measure
from nodes.runtime import config as configs
from nodes.runtime import tracing as traces
from nodes.runtime.serving import Service
from nodes.runtime.tracing import Tracing

# The next version, the newest value and the history: the minimum for a primary.
SCRIPT = """
local version = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[3], '1-' .. version, 'key', ARGV[1], 'value', ARGV[2])
return version
"""
KEYS = ["bare:version", "bare:data", "bare:log"]


def create_app(config: configs.NodeConfig, *also: str) -> Flask:
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

    no_threads = SimpleNamespace(start=lambda: None, stop=lambda: None)
    tracing = traces.make(config) if "tracing" in also else Tracing()
    tracing.install(app)
    if "metrics" in also:
        measure(app, CollectorRegistry())
    app.extensions |= {"node": no_threads, "tracing": tracing}
    return app


if __name__ == "__main__":
    found = configs.load("primary", os.environ)
    Service(found, lambda config: create_app(config, *sys.argv[1:])).run()
