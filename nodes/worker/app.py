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
from nodes.worker.target import Target
from nodes.worker.worker import ExperimentWorker

_PARALLEL = 8


def create_app(config: WorkerConfig) -> Flask:
    """The worker as a WSGI app, with its node in ``app.extensions["node"]``."""
    registry = CollectorRegistry()
    tracing = traces.make(config)
    target = Target(config, Peers(_PARALLEL, time.monotonic))
    queue = ExperimentQueue(connect(config.redis_url, as_text=False), config.namespace)
    # RQ sets time-outs of its own on its connections.
    worker = ExperimentWorker(connect(config.redis_url, as_text=False), queue, target, config.node_id)
    registry.register(Predicted(target))
    app, api = make_app(config, tracing, registry)
    app.extensions["node"] = worker
    add_health(api, config, worker.health)
    return app
