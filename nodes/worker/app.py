"""The worker's endpoints: its health and its metrics."""

from __future__ import annotations

import time

from flask import Flask
from prometheus_client import CollectorRegistry

from broker.connection import connect
from nodes.experiments.queue import ExperimentQueue
from nodes.http.app import add_health, make_app
from nodes.http.peers import Peers
from nodes.runtime import tracing as traces
from nodes.runtime.config import WorkerConfig
from nodes.worker.predicted import Predicted
from nodes.worker.target import Site
from nodes.worker.worker import Desk

_PARALLEL = 8


def create_app(config: WorkerConfig) -> Flask:
    """The worker as a WSGI app, with its node in ``app.extensions["node"]``."""
    registry = CollectorRegistry()
    tracing = traces.make(config)
    site = Site(config, Peers(_PARALLEL, time.monotonic))
    queue = ExperimentQueue(connect(config.redis_url, as_text=False), config.namespace)
    # RQ sets time-outs of its own on its connections.
    desk = Desk(connect(config.redis_url, as_text=False), queue, site, config.node_id)
    registry.register(Predicted(site))
    app, api = make_app(config, tracing, registry)
    app.extensions["node"] = desk
    add_health(api, config, desk.health)
    return app
