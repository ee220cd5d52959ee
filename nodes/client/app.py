"""The client's endpoints."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry

from nodes import tracing as traces
from nodes.api import Api
from nodes.base import add_health, make_app
from nodes.client.answers import (
    CompareAnswer,
    CompareQuery,
    StatusAnswer,
    TimeoutQuery,
    WriteAndReadAnswer,
    WriteAndWaitAnswer,
)
from nodes.client.client import Client
from nodes.client.directory import Directory
from nodes.client.metrics import ClientMetrics
from nodes.config import NodeConfig
from nodes.peers import Peers
from nodes.writing import WriteBody, write_id_of


def create_app(config: NodeConfig) -> Flask:
    """The client as a WSGI app, with its node in ``app.extensions["node"]``."""
    registry = CollectorRegistry()
    tracing = traces.make(config)
    peers = Peers(config.threads * 2, time.monotonic)
    directory = Directory(peers, config.primary_url, time.monotonic)
    client = Client(config, peers=peers, directory=directory, metrics=ClientMetrics(registry), tracing=tracing)
    app, api = make_app(config, tracing, registry)
    app.extensions["node"] = client
    add_health(api, config, client.health)
    _add_measures(api, client)
    return app


def _add_measures(api: Api, client: Client) -> None:
    def reply(answer: Any) -> Response:
        return api.reply(answer, position=answer["write_result"]["position"])

    @api.route("POST", "/write-and-read", body=WriteBody, answer=WriteAndReadAnswer)
    def write_and_read(body: WriteBody) -> Response:
        """Write, then read from every replica at once, without waiting."""
        return reply(client.write_and_read(body, write_id_of(request.headers.get("Idempotency-Key"))))

    @api.route("POST", "/write-and-wait", body=WriteBody, query=TimeoutQuery, answer=WriteAndWaitAnswer)
    def write_and_wait(body: WriteBody, query: TimeoutQuery) -> Response:
        """Write, and measure how long it takes until every replica has it."""
        write_id = write_id_of(request.headers.get("Idempotency-Key"))
        return reply(client.write_and_wait(body, write_id, query.timeout_ms))

    @api.route("GET", "/read-compare", query=CompareQuery, answer=CompareAnswer)
    def read_compare(query: CompareQuery) -> CompareAnswer:
        """Read from every node at once, and compare."""
        return client.compare(digest=query.digest)

    @api.route("GET", "/status", answer=StatusAnswer)
    def status() -> StatusAnswer:
        """Every node's version, and how far each replica is behind."""
        return client.status()
