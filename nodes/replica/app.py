"""A replica's endpoints."""

from __future__ import annotations

import time
from random import Random
from typing import Any, NoReturn

from flask import Flask, Response
from prometheus_client import CollectorRegistry

from broker.clock import LogClock
from broker.connection import Link, connect
from broker.delay.line import DelayLine
from broker.events import Events
from broker.log import ReplicationLog
from broker.registry import Registry
from nodes.http.api import Api
from nodes.http.app import add_health, make_app
from nodes.http.openapi import Answer
from nodes.http.problem import Problem
from nodes.http.reading import add_reads
from nodes.http.writing import AcksQuery
from nodes.replica.acknowledger import Acknowledger
from nodes.replica.applier import Applier
from nodes.replica.audit import Audit
from nodes.replica.faults import FAULTS, FaultBody, Parts
from nodes.replica.faults.active import ActiveFaults, EndedAnswer, FaultsAnswer, FaultShown
from nodes.replica.history import AppliedHistory
from nodes.replica.inbox import Inbox
from nodes.replica.membership import HEARTBEAT_MS
from nodes.replica.metrics import ReplicaMetrics
from nodes.replica.reader import BLOCK_MS, Reader
from nodes.replica.replica import AppliedAnswer, AppliedQuery, Replica, ResyncAnswer
from nodes.replica.store import ReplicaStore
from nodes.runtime import tracing as traces
from nodes.runtime.config import ReplicaConfig
from nodes.runtime.metrics import make_gate
from nodes.runtime.serving import end_at_once
from nodes.runtime.tracing import Tracing

HISTORY_CAPACITY = 20_000


def create_app(config: ReplicaConfig) -> Flask:
    """A replica as a WSGI app, with its node in ``app.extensions["node"]``. Raises ``StoreError``."""
    registry = CollectorRegistry()
    tracing = traces.make(config)
    replica = make_replica(config, tracing, registry)
    app, api = make_app(config, tracing, registry)
    app.extensions["node"] = replica

    @app.after_request
    def mark(response: Response) -> Response:
        if replica.resyncing and "Lab-Position" in response.headers:
            response.headers["Lab-Resyncing"] = replica.resyncing
        return response

    add_health(api, config, replica.health)
    add_reads(api, config.node_id, replica)
    _add_applied(api, replica)
    _add_faults(api, replica)
    _refuse_writes(api, config)
    return app


def make_replica(config: ReplicaConfig, tracing: Tracing, registry: CollectorRegistry) -> Replica:
    """Wire a replica together. Raises ``StoreError``."""
    # A client that waits for an answer as long as the server may block, and then some.
    link = Link()
    reading = connect(config.redis_url, answer_timeout_seconds=BLOCK_MS / 1000 + 5, link=link)
    client = connect(config.redis_url, answer_timeout_seconds=HEARTBEAT_MS / 1000 + 2, link=link)
    log = ReplicationLog(client, config.namespace)
    clock = LogClock(log.now_us, time.monotonic_ns, time.time_ns)
    store = ReplicaStore(config.data_dir)
    gate = make_gate(store.state(), config.threads * 7 // 8, registry)
    metrics = ReplicaMetrics(registry, config.node_id, FAULTS)
    history = AppliedHistory(HISTORY_CAPACITY)
    line = DelayLine(max_entries=config.line_max_entries, max_bytes=config.line_max_bytes)
    inbox = Inbox(line, clock.now_us)
    acknowledger = Acknowledger(log, config.node_id, config.ack_delay_ms, lambda: time.monotonic_ns() // 1000)
    reader = Reader(
        log=ReplicationLog(reading, config.namespace),
        replica=config.node_id,
        inbox=inbox,
        store=store,
        gate=gate,
        acknowledger=acknowledger,
        metrics=metrics,
    )
    applier = Applier(
        inbox=inbox,
        store=store,
        gate=gate,
        acknowledger=acknowledger,
        history=history,
        metrics=metrics,
        tracing=tracing,
        now_us=clock.now_us,
    )
    parts = Parts(
        inbox=inbox,
        reader=reader,
        acknowledger=acknowledger,
        store=store,
        clock=clock,
        link=link,
        random=Random(),  # noqa: S311 - chance, not a secret
        end_process=end_at_once,
    )
    # What is broken on purpose is told of over a connection that nobody cuts.
    told = Events(connect(config.redis_url), config.namespace)
    return Replica(
        config,
        store=store,
        gate=gate,
        inbox=inbox,
        reader=reader,
        applier=applier,
        acknowledger=acknowledger,
        history=history,
        clock=clock,
        registered=Registry(client, config.namespace),
        events=Events(client, config.namespace),
        audit=Audit(log, store, metrics, time.monotonic),
        faults=ActiveFaults(config.node_id, parts, told, metrics),
        end_process=end_at_once,
    )


def _add_applied(api: Api, replica: Replica) -> None:
    @api.route("GET", "/applied", admin=False, query=AppliedQuery, answer=AppliedAnswer)
    def applied(query: AppliedQuery) -> AppliedAnswer:
        """The entries applied lately, with the times at which they were published, due and applied."""
        return replica.applied(query)


def _add_faults(api: Api, replica: Replica) -> None:
    @api.route("POST", "/admin/faults", admin=True, body=FaultBody, answer=FaultShown)
    def begin(body: FaultBody) -> FaultShown:
        """Make something wrong with this replica, until it is ended or its time is up."""
        return replica.faults.begin(body.root)

    @api.route("GET", "/admin/faults", admin=True, answer=FaultsAnswer)
    def show() -> FaultsAnswer:
        """What is wrong with this replica on purpose, and what could be."""
        return replica.faults.show()

    @api.route("DELETE", "/admin/faults", admin=True, answer=EndedAnswer)
    def end_all() -> EndedAnswer:
        """End every fault of this replica."""
        return replica.faults.end(None)

    @api.route("DELETE", "/admin/faults/<key:fault>", admin=True, answer=EndedAnswer)
    def end(fault: str) -> EndedAnswer:
        """End one fault."""
        return replica.faults.end(fault)

    @api.route("POST", "/admin/resync", admin=True, answer=ResyncAnswer)
    def resync() -> ResyncAnswer:
        """Replace the content by a snapshot of the primary's, as soon as that is due here."""
        return replica.resync()


def _refuse_writes(api: Api, config: ReplicaConfig) -> None:
    def refuse(**_: Any) -> NoReturn:
        """Refuse a write, and name the primary."""
        detail = f"{config.node_id} is a replica and takes no writes; write to the primary at {config.primary_url}."
        raise Problem(403, "not-the-primary", "Not the primary", detail, primary_url=config.primary_url)

    for method, path in (("POST", "/data"), ("POST", "/data/batch"), ("DELETE", "/data/<key:key>")):
        api.route(method, path, admin=False, query=AcksQuery, answer=Answer(Problem, 403))(refuse)
