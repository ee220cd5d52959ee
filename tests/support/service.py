"""A small service, for tests of how nodes receive requests; started by ``python -m tests.support.service``.

It has 4 threads besides the reserved ones, accepts 24 connections, and expects each request within half a second.
"""

import os
from contextlib import suppress
from threading import Event
from typing import Any

from flask import Flask, request

from nodes.http import problem
from nodes.runtime import connections
from nodes.runtime.config import NodeConfig, load
from nodes.runtime.serving import Service
from nodes.runtime.tracing import Tracing

THREADS = 4
CONNECTIONS = 24
RECEIVE_SECONDS = 0.5


class _Node:
    """A node without background threads; ``stopped`` ends every wait."""

    def __init__(self) -> None:
        self.stopped = Event()

    def start(self) -> None: ...

    def stop(self) -> None:
        self.stopped.set()


class _Small(Service):
    def load_config(self) -> None:
        super().load_config()
        self.cfg.set("worker_connections", CONNECTIONS)


def _create_app(_config: NodeConfig) -> Flask:
    app, node = Flask("small"), _Node()
    app.extensions |= {"node": node, "tracing": Tracing()}
    problem.install(app)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok"}

    @app.get("/wait")
    def wait() -> dict[str, Any]:
        return {"stopped": node.stopped.wait(float(request.args["seconds"]))}

    @app.post("/faults/echo")
    @app.post("/echo")
    def echo() -> dict[str, Any]:
        return {"bytes": len(request.stream.read())}

    return app


if __name__ == "__main__":
    connections.RECEIVE_SECONDS = RECEIVE_SECONDS
    with suppress(KeyboardInterrupt):
        _Small(load("primary", {**os.environ, "LAB_THREADS": str(THREADS)}), _create_app).run()
