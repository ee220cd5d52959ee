"""The client's endpoints."""

from __future__ import annotations

import time
from random import SystemRandom
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry

from broker.clock import LogClock
from broker.connection import connect
from broker.events import Events
from broker.log import ReplicationLog
from broker.position import Position
from nodes.client import session as sessions
from nodes.client.answers import (
    CompareAnswer,
    CompareQuery,
    EverywhereAnswer,
    StatusAnswer,
    TimeoutQuery,
    TokenAnswer,
    WriteAndReadAnswer,
    WriteAndWaitAnswer,
)
from nodes.client.client import Client
from nodes.client.controls import Controls, add_controls
from nodes.client.directory import Directory
from nodes.client.experiments import Experiments, add_experiments
from nodes.client.faults import Faults, add_faults
from nodes.client.feed.feed import (
    EVENT_STREAM,
    LAST_EVENT_ID,
    LISTENERS_MAX,
    Feed,
    FeedEvent,
    FeedQuery,
    TooManyListeners,
)
from nodes.client.feed.sources import WAIT_MS, Sources, read_item
from nodes.client.head import LogHead
from nodes.client.levels import LevelQuery, Levels, ReadAnswer, shown
from nodes.client.metrics import ClientMetrics
from nodes.client.pages import add_pages
from nodes.client.prediction import add_prediction
from nodes.client.shelf import Shelf
from nodes.experiments.queue import ExperimentQueue
from nodes.http.api import Api, parsed
from nodes.http.app import add_health, make_app
from nodes.http.openapi import Answer
from nodes.http.peers import Peers
from nodes.http.problem import Problem
from nodes.http.writing import IDEMPOTENT, AcksQuery, WriteBody, write_id_of
from nodes.runtime import tracing as traces
from nodes.runtime.config import ClientConfig
from nodes.runtime.gate import Places

_FAULTS_PARALLEL = 64


class _Together:
    """What runs behind the client's endpoints."""

    def __init__(self, *parts: Client | Experiments | LogHead | Sources) -> None:
        self._parts = parts

    def start(self) -> None:
        """Start all parts."""
        for part in self._parts:
            part.start()

    def stop(self) -> None:
        """Stop all parts."""
        for part in self._parts:
            part.stop()


def create_app(config: ClientConfig) -> Flask:
    """The client as a WSGI app, with its node in ``app.extensions["node"]``."""
    registry = CollectorRegistry()
    tracing = traces.make(config)
    peers = Peers(config.threads * 2, time.monotonic)
    directory = Directory(peers, config.primary_url)
    head = LogHead(peers, config.primary_url)
    metrics = ClientMetrics(registry)
    queue = ExperimentQueue(connect(config.redis_url, max_connections=config.threads, as_text=False), config.namespace)
    experiments = Experiments(queue, Shelf(config.data_dir))
    # A connection that waits for an answer as long as the log server may block, and then some.
    waiting = connect(config.redis_url, answer_timeout_seconds=WAIT_MS / 1000 + 5)
    log = ReplicationLog(waiting, config.namespace)
    clock = LogClock(log.now_us, time.monotonic_ns, time.time_ns)
    feed = Feed(lambda: clock.now_us() / 1000)
    sources = Sources(
        feed,
        log=log,
        events=Events(waiting, config.namespace),
        peers=peers,
        primary_url=config.primary_url,
        clock=clock,
    )
    client = Client(config, peers=peers, directory=directory, metrics=metrics, tracing=tracing)
    app, api = make_app(config, tracing, registry)
    app.extensions["node"] = _Together(sources, client, head, experiments)
    add_health(api, config, client.health)
    _add_feed(api, feed)
    controls = Controls(peers, config.primary_url)
    add_controls(api, controls)
    add_prediction(api, controls.delays)
    add_pages(app)
    places = Places(config.threads * 7 // 8)
    _add_measures(api, client, places)
    _add_sessions(
        api,
        client,
        directory,
        places,
        Levels(
            primary_url=config.primary_url,
            peers=peers,
            directory=directory,
            head=head,
            metrics=metrics,
            random=SystemRandom(),
            monotonic=time.monotonic,
            seen=lambda answer: feed.publish("reads", read_item(answer, clock.now_us() / 1000)),
        ),
    )
    add_experiments(api, experiments)
    # Peers of its own, so that what ends a fault needs no place that waiting requests take.
    add_faults(api, Faults(Peers(_FAULTS_PARALLEL, time.monotonic), directory, config.admin_token))
    return app


def _add_feed(api: Api, feed: Feed) -> None:
    @api.route(
        "GET",
        "/events",
        admin=False,
        query=FeedQuery,
        headers=LAST_EVENT_ID,
        answer=Answer(FeedEvent, media=EVENT_STREAM),
    )
    def events(query: FeedQuery) -> Response:
        """Everything that happens, as server-sent events: writes, applies, reads, and how far everybody is.

        A message comes every 100 ms at the most; its data is JSON with a list for each kind of happening. The header
        Last-Event-ID, or the parameter, goes on from there, up to a minute back; an event of type missed says that
        there was more than that.
        """
        last_id = request.headers.get("Last-Event-ID")
        if last_id:
            query = parsed(FeedQuery, {"last_event_id": last_id}, 400, "invalid-last-event-id")
        try:
            found = feed.listen(query.last_event_id)
        except TooManyListeners:
            detail = f"{LISTENERS_MAX} listen already, which is the bound; close one of them."
            problem = Problem(503, "too-many-listeners", "Too many listeners", detail)
            problem.headers["Retry-After"] = "5"
            raise problem from None
        return Response(found, mimetype=EVENT_STREAM, headers={"Cache-Control": "no-cache"})


def _add_measures(api: Api, client: Client, places: Places) -> None:
    def reply(answer: Any) -> Response:
        return api.reply(answer, position=answer["write_result"]["position"])

    @api.route("POST", "/write-and-read", admin=False, body=WriteBody, headers=IDEMPOTENT, answer=WriteAndReadAnswer)
    def write_and_read(body: WriteBody) -> Response:
        """Write, then read from every replica at once, without waiting."""
        return reply(client.write_and_read(body, write_id_of(request.headers.get("Idempotency-Key"))))

    @api.route(
        "POST",
        "/write-and-wait",
        admin=False,
        body=WriteBody,
        query=TimeoutQuery,
        headers=IDEMPOTENT,
        answer=WriteAndWaitAnswer,
    )
    def write_and_wait(body: WriteBody, query: TimeoutQuery) -> Response:
        """Write, and measure how long it takes until every replica has it."""
        write_id = write_id_of(request.headers.get("Idempotency-Key"))
        with places.one():
            return reply(client.write_and_wait(body, write_id, query.timeout_ms))

    @api.route("GET", "/read-compare", admin=False, query=CompareQuery, answer=CompareAnswer)
    def read_compare(query: CompareQuery) -> CompareAnswer:
        """Read from every node at once, and compare."""
        return client.compare(digest=query.digest)

    @api.route("GET", "/everywhere/<key:key>", admin=False, answer=EverywhereAnswer)
    def everywhere(key: str) -> EverywhereAnswer:
        """What each node answers for a key now, without waiting for anything."""
        return client.everywhere(key)

    @api.route("GET", "/status", admin=False, answer=StatusAnswer)
    def status() -> StatusAnswer:
        """Every node's version, and how far each replica is behind."""
        return client.status()


def _add_sessions(api: Api, client: Client, directory: Directory, places: Places, levels: Levels) -> None:
    @api.route(
        "POST",
        "/write",
        admin=False,
        body=WriteBody,
        query=AcksQuery,
        headers={**IDEMPOTENT, **sessions.TOKEN},
        answer=TokenAnswer,
    )
    def write(body: WriteBody, query: AcksQuery) -> Response:
        """Write a key. The answer has the token of the write; a cookie keeps it as well."""
        session = sessions.of(request, directory.lab())
        with places.one():
            written = client.write(body, write_id_of(request.headers.get("Idempotency-Key")), query)
        session = session.after_write(Position.parse(written["position"]))
        response = api.reply({**written, "token": session.token})
        response.headers["Set-Cookie"] = session.cookie
        return response

    @api.route("GET", "/read/<key:key>", admin=False, query=LevelQuery, headers=sessions.TOKEN, answer=ReadAnswer)
    def read(key: str, query: LevelQuery) -> Response:
        """Read a key at a consistency level; for a session, from the Lab-Position header or the cookie on."""
        session = sessions.of(request, directory.lab(), required=query.level == "session")
        with places.one():
            answer = levels.read(key, query, session)
        session = session.after_read(shown(Position.parse(answer["position"]), answer["version"]))
        headers = {
            "Lab-Source": answer["source"],
            "Lab-Position": answer["position"],
            "Set-Cookie": session.cookie,
        }
        if answer["version"] == 0:
            evidence = {name: found for name, found in answer.items() if name != "value"}
            problem = Problem(404, "no-such-key", "No such key", f"{answer['source']} does not have it.", **evidence)
            problem.headers |= headers
            raise problem
        response = api.reply(answer)
        response.headers.update(headers)
        return response
