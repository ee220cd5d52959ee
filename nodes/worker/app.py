"""The worker's endpoints: its health and its metrics."""

import time
from functools import partial

from flask import Flask
from prometheus_client import CollectorRegistry

from broker.address import parse
from broker.clock import LogClock
from broker.connection import Link, connect
from broker.history import History
from nodes.experiments.queue import ExperimentQueue, queue_link
from nodes.http.app import add_health, make_app
from nodes.http.peers import Peers
from nodes.runtime import tracing as traces
from nodes.runtime.config import WorkerConfig
from nodes.worker.perform import perform
from nodes.worker.predicted import Predicted
from nodes.worker.run import Target
from nodes.worker.worker import ExperimentWorker

_PARALLEL = 8  # requests to other nodes at once, apart from those of an experiment


def create_app(config: WorkerConfig) -> Flask:
    registry = CollectorRegistry()
    tracing = traces.make(config)
    target = Target(config, Peers(_PARALLEL, time.monotonic))
    link = Link(parse(config.redis_url, config.namespace))
    queued = queue_link(config, link)
    queue = ExperimentQueue(connect(queued, as_text=False), config.namespace)
    history = History(connect(link), config.namespace)
    clock = LogClock(history.now_us, time.monotonic_ns, time.time_ns)
    worker = ExperimentWorker(
        connect(queued, as_text=False),  # RQ sets the time-outs of its connections
        queue,
        target,
        config.node_id,
        partial(perform, config, queue, clock),
    )
    registry.register(Predicted(target))
    app, api = make_app(config, tracing, registry)
    app.extensions |= {"node": worker, "link": link}
    add_health(api, config, worker.health)
    return app
