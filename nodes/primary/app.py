"""The primary's endpoints."""

from __future__ import annotations

import time

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry
from typing_extensions import TypedDict

from broker.clock import LogClock
from broker.connection import connect
from broker.errors import LogFull, LogUnverified
from broker.events import Events
from broker.log import ReplicationLog
from broker.registry import Registry
from nodes.http.api import Api
from nodes.http.app import add_health, make_app
from nodes.http.peers import Peers
from nodes.http.problem import Problem
from nodes.http.reading import add_reads
from nodes.http.writing import IDEMPOTENT, AcksQuery, WriteAnswer, WriteBody, write_id_of
from nodes.primary.acceptance import Acceptance
from nodes.primary.acks import Acks
from nodes.primary.batch import Batches, add_batch
from nodes.primary.delays import (
    AllDelaysAnswer,
    DelayAnswer,
    DelayBody,
    Delays,
    DelaysAnswer,
    DelaysBody,
)
from nodes.primary.metrics import PrimaryMetrics, ReplicaCollector
from nodes.primary.primary import AgeQuery, PositionAnswer, Primary, ReplicasAnswer, ResetAnswer, ScrapeTargets
from nodes.primary.retention import Retention
from nodes.primary.verification import Verification
from nodes.primary.writes import Writes
from nodes.runtime import tracing as traces
from nodes.runtime.config import PrimaryConfig
from nodes.runtime.gate import EMPTY_STATE
from nodes.runtime.metrics import make_gate


class ForgottenAnswer(TypedDict):
    """The replica that is no longer registered."""

    status: str
    replica_id: str


def create_app(config: PrimaryConfig) -> Flask:
    """The primary as a WSGI app, with its node in ``app.extensions["node"]``."""
    registry = CollectorRegistry()
    tracing = traces.make(config)
    client = connect(config.redis_url, max_connections=config.threads + 16)
    unrepaired = ReplicationLog(client, config.namespace)
    registered, events = Registry(client, config.namespace), Events(client, config.namespace)
    clock = LogClock(unrepaired.history.now_us, time.monotonic_ns, time.time_ns)
    gate = make_gate(EMPTY_STATE, config.threads * 7 // 8, registry)
    metrics = PrimaryMetrics(registry)
    peers = Peers(config.threads * 2, time.monotonic)
    verification = Verification(
        log=unrepaired,
        registered=registered,
        events=events,
        gate=gate,
        peers=peers,
        monotonic=time.monotonic,
        pause=time.sleep,
    )
    retention = Retention(unrepaired, config)
    repairs = {LogUnverified: verification.require, LogFull: retention.shrink}
    log = ReplicationLog(client, config.namespace, repairs)
    acceptance = Acceptance(log, metrics, time.monotonic)

    primary = Primary(
        config,
        log=log,
        registered=registered,
        events=events,
        gate=gate,
        peers=peers,
        clock=clock,
        metrics=metrics,
        verification=verification,
        acceptance=acceptance,
        retention=retention,
    )
    app, api = make_app(config, tracing, registry)
    app.extensions["node"] = primary
    registry.register(ReplicaCollector(log, registered, retention))
    add_health(api, config, primary.health)
    add_batch(api, Batches(log, gate, acceptance))
    _add_writes(api, Writes(log, gate, acceptance, metrics, tracing), Acks(registered, peers))
    add_reads(api, config.node_id, primary)
    _add_replicas(api, primary)
    _add_admin(api, primary, Delays(registered, events, metrics, clock.now_us))
    return app


def _write_id() -> str:
    return write_id_of(request.headers.get("Idempotency-Key"))


def _add_writes(api: Api, writes: Writes, acks: Acks) -> None:
    @api.route("POST", "/data", admin=False, body=WriteBody, query=AcksQuery, headers=IDEMPOTENT, answer=WriteAnswer)
    def write(body: WriteBody, query: AcksQuery) -> WriteAnswer:
        """Write a key; with acks, answer when so many replicas have applied it.

        A retry with the same Idempotency-Key is the same write. At the deadline the answer is the same, and
        acks_reached is less than was asked for.
        """
        members = acks.require(query.acks)
        return acks.complete(writes.set(body, _write_id()), members, query)

    @api.route("DELETE", "/data/<key:key>", admin=False, query=AcksQuery, headers=IDEMPOTENT, answer=WriteAnswer)
    def delete(key: str, query: AcksQuery) -> WriteAnswer:
        """Delete a key; with acks, answer when so many replicas have applied that."""
        members = acks.require(query.acks)
        return acks.complete(writes.delete(key, _write_id()), members, query)


def _add_replicas(api: Api, primary: Primary) -> None:
    @api.route("GET", "/position", admin=False, query=AgeQuery, answer=PositionAnswer)
    def position(query: AgeQuery) -> PositionAnswer:
        """The newest position that was committed at least age_ms ago, and the newest of all."""
        return primary.position(query.age_ms)

    @api.route("GET", "/replicas", admin=False, answer=ReplicasAnswer)
    def replicas() -> ReplicasAnswer:
        """Every registered replica, where to reach it, and how far it is behind."""
        return primary.replicas()

    @api.route("GET", "/replicas/targets", admin=False, answer=list[ScrapeTargets])
    def targets() -> Response:
        """Where the replicas serve their metrics, for Prometheus's HTTP service discovery."""
        return api.reply(primary.scrape_targets())


def _add_admin(api: Api, primary: Primary, delays: Delays) -> None:
    @api.route("GET", "/admin/replication-delays", admin=True, answer=DelaysAnswer)
    def show_delays() -> DelaysAnswer:
        """The delays in force."""
        return delays.show()

    @api.route("POST", "/admin/replication-delay", admin=True, body=DelayBody, answer=DelayAnswer)
    def change_delay(body: DelayBody) -> DelayAnswer:
        """Change one replica's delay; it also counts for entries already waiting."""
        return delays.change(body)

    @api.route("POST", "/admin/replication-delays", admin=True, body=DelaysBody, answer=AllDelaysAnswer)
    def change_delays(body: DelaysBody) -> AllDelaysAnswer:
        """Change the delays of several replicas, all or none."""
        return delays.change_several(body)

    @api.route("POST", "/admin/reset", admin=True, answer=ResetAnswer)
    def reset() -> ResetAnswer:
        """Empty the lab: the next epoch begins at version 0."""
        return primary.reset()

    @api.route("DELETE", "/admin/replicas/<key:replica>", admin=True, answer=ForgottenAnswer)
    def forget(replica: str) -> ForgottenAnswer:
        """Forget a replica that will not come back."""
        if not primary.forget(replica):
            raise Problem(404, "unknown-replica", "Unknown replica", f"There is no replica {replica[:100]!r}.")
        return {"status": "forgotten", "replica_id": replica}
