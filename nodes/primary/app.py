"""The primary's endpoints and wiring."""

import time
from dataclasses import replace
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry
from typing_extensions import TypedDict

from broker.errors import LogFull, LogUnverified
from nodes.http import writing
from nodes.http.api import Api, raw_body
from nodes.http.app import add_health, make_app
from nodes.http.openapi import Answer
from nodes.http.problem import Problem, maps
from nodes.http.reading import VersionAnswer, WaitQuery, add_reads
from nodes.http.reading import version as version_of
from nodes.http.writing import IDEMPOTENT, AcksQuery, CopiesQuery, WriteAnswer, WriteBody, write_id_of
from nodes.primary import batch, delays
from nodes.primary.acks import Acknowledgements
from nodes.primary.errors import NoSuchKey, TooFewReplicas, WriteFailed
from nodes.primary.losses import Losses
from nodes.primary.metrics import ReplicaCollector
from nodes.primary.parts import make_parts
from nodes.primary.primary import AgeQuery, PositionAnswer, Primary, ReplicasAnswer, ResetAnswer, ScrapeTargets
from nodes.primary.upkeep import Retention, Verification
from nodes.primary.writes import Writes
from nodes.runtime import tracing as traces
from nodes.runtime.config import PrimaryConfig
from nodes.runtime.gate import Places

BATCH_BYTES_MAX = 8 * 2**20

maps(WriteFailed, 503, "log-unavailable", "The log is unavailable")
maps(batch.NotSent, 503, "not-sent", "Not sent", "not_applied")
maps(NoSuchKey, 404, "no-such-key", "No such key")
maps(TooFewReplicas, 400, "invalid-parameter", "Invalid parameter")
maps(batch.TooManyBatches, 503, "too-many-batches", "Too many batches", "not_applied")
maps(delays.UnknownReplica, 422, "unknown-replica", "Unknown replica")


class ForgottenAnswer(TypedDict):
    status: str
    replica_id: str


def create_app(config: PrimaryConfig) -> Flask:
    registry = CollectorRegistry()
    tracing = traces.make(config)
    unrepaired = make_parts(config, registry)
    verification = Verification(unrepaired, time.monotonic, time.sleep)
    retention = Retention(unrepaired.log, config)
    repairs = {LogUnverified: verification.require, LogFull: retention.shrink}
    parts = replace(unrepaired, log=unrepaired.log.repaired_by(repairs))
    losses = Losses(parts.log.history, parts.events, time.monotonic)
    write_path = Writes(parts, tracing, time.monotonic, losses.acknowledged.extend)
    registry.register(ReplicaCollector(parts, retention.usage))

    primary = Primary(parts, verification, retention, losses, write_path.check)
    app, api = make_app(config, tracing, registry)
    app.extensions |= {"node": primary, "link": parts.link}
    add_health(api, config, primary.health, losses.recent)
    _add_batch(api, batch.Batches(write_path))
    _add_writes(api, write_path, parts.acknowledgements)
    add_reads(api, config.node_id, primary)
    _add_replicas(api, primary, config.node_id)
    _add_admin(api, primary, delays.Delays(parts))
    return app


def _add_writes(api: Api, write_path: Writes, acks: Acknowledgements) -> None:
    @api.route("POST", "/data", admin=False, body=WriteBody, query=AcksQuery, headers=IDEMPOTENT, answer=WriteAnswer)
    def write(body: WriteBody, query: AcksQuery) -> WriteAnswer:
        """Write a key; with acks, respond once that many replicas have acknowledged it.

        With copies, it is acknowledged once that many replicas of the log server have it, by default LAB_LOG_COPIES;
        otherwise the response is a 503 with outcome unknown and the position.
        A retry with the same Idempotency-Key is the same write. At the deadline the response is the same, except that
        acks_reached is less than required.
        """
        with acks.required(query.acks) as replicas:
            written = write_path.set(body, write_id_of(request.headers.get("Idempotency-Key")), query.copies)
            return acks.complete(written, replicas, query) if query.acks else written

    @api.route("DELETE", "/data/<key:key>", admin=False, query=AcksQuery, headers=IDEMPOTENT, answer=WriteAnswer)
    def delete(key: str, query: AcksQuery) -> WriteAnswer:
        """Delete a key; with acks, respond once that many replicas have acknowledged it."""
        with acks.required(query.acks) as replicas:
            written = write_path.delete(key, write_id_of(request.headers.get("Idempotency-Key")), query.copies)
            return acks.complete(written, replicas, query) if query.acks else written


def _add_batch(api: Api, batches: batch.Batches) -> None:
    room = Places(batch.BATCHES_MAX, batch.TooManyBatches)
    answers = Answer(batch.BatchAnswer, also={207: batch.BatchAnswer})
    header = writing.idempotency_key(writing.BATCH_WRITE_ID_MAX)

    described: Any = {"body": writing.BATCH_BODIES, "query": CopiesQuery, "headers": header, "answer": answers}

    @api.route("POST", "/data/batch", admin=False, **described)
    def write_batch(query: CopiesQuery) -> Response:
        """Write many keys: an array of objects with key and value, or one such object per line.

        Each item is accepted or rejected independently, in the given order, and has a result; the status is 207 if any
        was not acknowledged. Invalid JSON rejects a whole array, but only the affected line of a body with lines.
        Repeating a request with its Idempotency-Key writes nothing twice. At most 10,000 items and 8 MiB.
        """
        write_id = write_id_of(request.headers.get("Idempotency-Key"), writing.BATCH_WRITE_ID_MAX)
        with room.one():
            answer = batches.write(writing.batch_items(raw_body(BATCH_BYTES_MAX)), write_id, query.copies)
        return api.reply(answer, 200 if answer["acknowledged"] == len(answer["results"]) else 207)


def _add_replicas(api: Api, primary: Primary, source: str) -> None:
    @api.route("GET", "/version", admin=False, query=WaitQuery, answer=VersionAnswer)
    def version(query: WaitQuery) -> VersionAnswer:
        """The primary's position; with min_position or min_version, once it is reached."""
        return version_of(source, primary, query)

    @api.route("GET", "/position", admin=False, query=AgeQuery, answer=PositionAnswer)
    def position(query: AgeQuery) -> PositionAnswer:
        """The newest position committed at least age_ms ago, and the newest of all."""
        return primary.position(query.age_ms)

    @api.route("GET", "/replicas", admin=False, answer=ReplicasAnswer)
    def replicas() -> ReplicasAnswer:
        """Every registered replica, its address, and its lag."""
        return primary.replicas()

    @api.route("GET", "/replicas/targets", admin=False, answer=list[ScrapeTargets])
    def targets() -> Response:
        """The replicas' metrics addresses, for Prometheus's HTTP service discovery."""
        return api.reply(primary.scrape_targets())


def _add_admin(api: Api, primary: Primary, live: delays.Delays) -> None:
    @api.route("GET", "/admin/replication-delays", admin=True, answer=delays.DelaysAnswer)
    def show_delays() -> delays.DelaysAnswer:
        """The current delays."""
        return live.show()

    @api.route("POST", "/admin/replication-delay", admin=True, body=delays.DelayBody, answer=delays.DelayAnswer)
    def change_delay(body: delays.DelayBody) -> delays.DelayAnswer:
        """Change one replica's delay; it also applies to entries already waiting."""
        return live.change(body)

    @api.route("POST", "/admin/replication-delays", admin=True, body=delays.DelaysBody, answer=delays.AllDelaysAnswer)
    def change_delays(body: delays.DelaysBody) -> delays.AllDelaysAnswer:
        """Change the delays of several replicas, all or none."""
        return live.change_several(body)

    @api.route("POST", "/admin/reset", admin=True, answer=ResetAnswer)
    def reset() -> ResetAnswer:
        """Empty the lab: the next epoch starts at version 0."""
        return primary.reset()

    @api.route("DELETE", "/admin/replicas/<key:replica>", admin=True, answer=ForgottenAnswer)
    def forget(replica: str) -> ForgottenAnswer:
        """Forget a replica that will not return."""
        if not primary.forget(replica):
            raise Problem(404, "unknown-replica", "Unknown replica", f"There is no replica {replica[:100]!r}.")
        return {"status": "forgotten", "replica_id": replica}
