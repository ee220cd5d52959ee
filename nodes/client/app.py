"""The client's endpoints."""

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from random import SystemRandom
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry

from broker.address import parse
from broker.clock import LogClock
from broker.connection import Link, connect
from broker.failover import Failovers
from broker.log import ReplicationLog
from broker.position import Position
from broker.registry import Events
from nodes.client import errors, pages, session
from nodes.client.client import Client, TimeoutQuery, WriteAndReadAnswer, WriteAndWaitAnswer
from nodes.client.comparison import CompareAnswer, CompareQuery, Comparison, EverywhereAnswer, StatusAnswer
from nodes.client.controls import (
    Controls,
    DelayChange,
    Faults,
    FaultsByReplica,
    FaultStart,
    PredictionAnswer,
    PredictionQuery,
    ReplicaName,
)
from nodes.client.directory import Directory, LogHead
from nodes.client.experiments import Experiments, ExperimentsAnswer, ExperimentStore, RawQuery
from nodes.client.feed.feed import EVENT_STREAM, LAST_EVENT_ID, LISTENERS_MAX, Before, Feed, FeedEvent, FeedQuery, full
from nodes.client.feed.reads import Reads
from nodes.client.feed.sources import WAIT_MS, Sources
from nodes.client.levels import LevelQuery, Nodes
from nodes.client.log_faults import LogFaults
from nodes.client.metrics import ClientMetrics
from nodes.client.reading import ReadAnswer, Reader, shown
from nodes.client.scenes import LeaseQuery, Scene, SceneAnswer, SceneBody, Scenes
from nodes.experiments.queue import ExperimentQueue, queue_link
from nodes.experiments.spec import Experiment, ExperimentBody
from nodes.http import guard
from nodes.http.api import Api, parsed
from nodes.http.app import add_health, make_app
from nodes.http.openapi import Answer
from nodes.http.peers import Peers
from nodes.http.problem import Problem, maps
from nodes.http.writing import IDEMPOTENT, AcksQuery, WriteAnswer, WriteBody, write_id_of
from nodes.runtime import caller
from nodes.runtime import tracing as traces
from nodes.runtime.config import ClientConfig
from nodes.runtime.gate import Places, TooManyWaiters

_FAULTS_PARALLEL = 64

maps(errors.NoReplicas, 503, "no-replicas", "No replicas", "not_applied")
maps(errors.UnknownReplica, 422, "unknown-replica", "Unknown replica")
maps(errors.UnprovenReplica, 503, "unproven-replica", "Unproven replica")
maps(errors.NoSuchExperiment, 404, "no-such-experiment", "No such experiment")
maps(errors.ExperimentEnded, 409, "experiment-ended", "Experiment ended")
maps(errors.ExperimentRunning, 409, "experiment-running", "Experiment running")
maps(errors.NoSuchScene, 404, "no-such-scene", "No such scene")
maps(errors.SceneRunning, 409, "scene-running", "Scene running")
maps(errors.NotRestored, 503, "not-restored", "Not restored yet", "unknown")
maps(errors.QueueFull, 429, "queue-full", "Queue full")
maps(errors.TooManyListeners, 503, "too-many-listeners", "Too many listeners")
maps(errors.NoReplicaToRead, 400, "unknown-replica", "Unknown replica")
maps(errors.LevelNotAvailable, 409, "level-not-available", "Level not available")
maps(errors.LevelNotReached, 504, "level-not-reached", "Level not reached")
maps(errors.MalformedPosition, 400, "malformed-position", "Malformed position")
maps(errors.ForeignSession, 412, "foreign-session", "Session of another lab")
maps(errors.PositionNotIssued, 400, "position-not-issued", "Position not issued")
maps(errors.EarlierEpoch, 412, "earlier-epoch", "Position of an earlier epoch")


class TokenAnswer(WriteAnswer):
    token: str


class _Node:
    def __init__(self, *parts: Client | Experiments | LogHead | Scenes | Sources) -> None:
        self._parts = parts

    def start(self) -> None:
        for part in self._parts:
            part.start()

    def stop(self) -> None:
        for part in self._parts:
            part.stop()


def create_app(config: ClientConfig) -> Flask:
    registry = CollectorRegistry()
    tracing = traces.make(config)
    peers = Peers(config.threads * 2, time.monotonic)
    directory = Directory(peers, config.primary_url)
    head = LogHead(peers, config.primary_url)
    metrics = ClientMetrics(registry)
    link = Link(parse(config.redis_url, config.namespace))
    queued = connect(queue_link(config, link), max_connections=config.threads, as_text=False)
    queue = ExperimentQueue(queued, config.namespace)
    experiments = Experiments(queue, ExperimentStore(config.data_dir))
    # A connection that waits for a reply for as long as the log server can block, plus a margin.
    waiting = connect(link, answer_timeout_seconds=WAIT_MS / 1000 + 5)
    log = ReplicationLog(waiting, config.namespace)
    clock = LogClock(log.history.now_us, time.monotonic_ns, time.time_ns)
    listeners_max = min(LISTENERS_MAX, config.threads // 2)
    feed = Feed(lambda: clock.now_us() / 1000, listeners_max, {"log": log.history.stream})
    sources = Sources(feed, log, Events(waiting, config.namespace), peers, config.primary_url, clock)
    reads = Reads(feed, clock)
    client = Client(config.primary_url, peers, directory, metrics, tracing, reads.of_version)
    nodes = Nodes(config.primary_url, peers, directory, head, SystemRandom(), time.monotonic)
    reader = Reader(nodes, metrics, reads.at_level)
    places = Places(config.threads * 7 // 8)
    app, api = make_app(config, tracing, registry)
    # Separate peers, so that ending a fault does not compete with waiting requests for capacity.
    direct = Peers(_FAULTS_PARALLEL, time.monotonic)
    log_faults = LogFaults(Failovers(link.address), Events(connect(link), config.namespace), clock.now_us)
    faults = Faults(direct, directory, config.admin_token, log_faults)
    own = None if config.admin_token is None else f"Bearer {config.admin_token}"
    lab = Controls(direct, config.primary_url, lambda: own)
    scenes = Scenes(queue, experiments, lab, faults, time.monotonic, clock.now_us)
    app.extensions |= {"node": _Node(sources, client, head, experiments, scenes), "link": link}
    add_health(api, config, client.health)
    add_pages(app)
    add_feed(api, feed, places, sources.before)
    add_controls(api, Controls(peers, config.primary_url, lambda: request.headers.get("Authorization")))
    add_faults(api, faults)
    add_experiments(api, experiments)
    add_scenes(api, scenes)
    add_comparison(api, Comparison(peers, directory, config.primary_url, client.waiting, reads.of_version))
    add_writes(api, client, directory, places)
    add_reads(api, reader, directory, places)
    return app


def add_pages(app: Flask) -> None:
    """Serve the console at ``/`` and its files below ``/console/``, and no other files."""

    def serve(name: str = pages.INDEX) -> Any:
        if (found := pages.page(name, request)) is None:
            raise Problem(404, "no-such-page", "No such page", f"No page {name[:100]!r}.")
        return found

    for path, endpoint in (("/", "console"), ("/console/<path:name>", "console file")):
        app.add_url_rule(path, endpoint, serve, methods=["GET"])
        guard.declare(app, endpoint, admin=False)


def add_feed(api: Api, feed: Feed, places: Places, before: Callable[[], Before]) -> None:
    answer = Answer(FeedEvent, media=EVENT_STREAM)

    @api.route("GET", "/events", admin=False, query=FeedQuery, headers=LAST_EVENT_ID, answer=answer)
    def listen(query: FeedQuery) -> Response:
        """Everything that happens, as server-sent events: writes, applied and acknowledged entries, reads, and states.

        At most one message every 100 ms; its data is JSON with the name of the stream (log) and a list for each kind of
        event. The list groups has the last position delivered to each replica, when one has changed, and once a second;
        earlier has the newest entries from before the stream, and comes at its start.
        The header Last-Event-ID, or the parameter, resumes from there, up to a minute back; an event of type missed
        reports a longer gap. Otherwise, since_ms starts with the newest message before this time; an event of type kept
        says first from when on the events are kept. If all streams are in use, a browser, which shows no other answer,
        gets an event of type full with the reason.
        """
        if last_id := request.headers.get("Last-Event-ID"):
            query = parsed(FeedQuery, {"last_event_id": last_id}, 400, "invalid-last-event-id")
        sock = caller.CONNECTION.get() if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1" else None
        events: Iterable[bytes]
        with ExitStack() as held:
            try:
                held.enter_context(places.one())
                events = stream = feed.listen(query.last_event_id, sock, query.since_ms, before())
                held.callback(feed.leave, stream)
            except (errors.TooManyListeners, TooManyWaiters) as error:
                if EVENT_STREAM not in request.headers.get("Accept", ""):
                    raise
                events = [full(f"{error}.")]
            response = Response(events, mimetype=EVENT_STREAM, headers={"Cache-Control": "no-cache"})
            response.call_on_close(held.pop_all().close)
        return response


def add_controls(api: Api, controls: Controls) -> None:
    api.route("GET", "/delays", admin=True, answer=dict[str, Any])(controls.delays)
    api.route("POST", "/delays", admin=True, body=DelayChange, answer=dict[str, Any])(controls.change)
    api.route("POST", "/reset", admin=True, answer=dict[str, Any])(controls.reset)
    api.route("GET", "/prediction", admin=True, query=PredictionQuery, answer=PredictionAnswer)(controls.prediction)


def add_faults(api: Api, faults: Faults) -> None:
    api.route("POST", "/faults", admin=True, body=FaultStart, answer=dict[str, Any])(faults.start)
    api.route("GET", "/faults", admin=True, answer=FaultsByReplica)(faults.show)
    api.route("DELETE", "/faults/<replica>", admin=True, answer=dict[str, Any])(faults.end_all)
    api.route("DELETE", "/faults/<replica>/<fault>", admin=True, answer=dict[str, Any])(faults.end)
    api.route("POST", "/faults/reset", admin=True, answer=FaultsByReplica)(faults.reset)
    api.route("POST", "/resync", admin=True, body=ReplicaName, answer=dict[str, Any])(faults.resync)


def add_experiments(api: Api, experiments: Experiments) -> None:
    @api.route("POST", "/experiments", admin=True, body=ExperimentBody, answer=Answer(Experiment, 202))
    def submit(body: ExperimentBody) -> Response:
        """Queue an experiment of a kind, or a sweep of one."""
        found = experiments.submit(body)
        response = api.reply(found, 202)
        response.headers["Location"] = f"/experiments/{found['id']}"
        return response

    api.route("GET", "/experiments", admin=False, answer=ExperimentsAnswer)(experiments.all)
    api.route("GET", "/experiments/<key:name>", admin=False, query=RawQuery, answer=Experiment)(experiments.get)
    api.route("DELETE", "/experiments/<key:name>", admin=True, answer=Experiment)(experiments.cancel)


def add_scenes(api: Api, scenes: Scenes) -> None:
    @api.route("POST", "/scenes", admin=True, body=SceneBody, answer=Answer(Scene, 201))
    def begin(body: SceneBody) -> Response:
        """Begin a scene: what it changes is restored when it ends, or when it is not renewed for ten seconds.

        Restored are delays, orders and seeds; faults that started since are ended, and those that ended start again.
        One scene can run at a time, and none while an experiment is waiting or running.
        """
        found = scenes.begin(body)
        response = api.reply(found, 201)
        response.headers["Location"] = f"/scenes/{found['id']}"
        return response

    api.route("GET", "/scenes", admin=False, answer=SceneAnswer)(scenes.current)
    api.route("PUT", "/scenes/<key:name>", admin=True, query=LeaseQuery, answer=Scene)(scenes.renew)
    api.route("DELETE", "/scenes/<key:name>", admin=True, answer=Scene)(scenes.end)


def add_comparison(api: Api, comparison: Comparison) -> None:
    api.route("GET", "/read-compare", admin=False, query=CompareQuery, answer=CompareAnswer)(comparison.compare)
    api.route("GET", "/everywhere/<key:key>", admin=False, answer=EverywhereAnswer)(comparison.everywhere)
    api.route("GET", "/status", admin=False, answer=StatusAnswer)(comparison.status)


def add_writes(api: Api, client: Client, directory: Directory, places: Places) -> None:
    def write_id() -> str:
        return write_id_of(request.headers.get("Idempotency-Key"))

    def measured(answer: Any) -> Response:
        return api.reply(answer, position=answer["write_result"]["position"])

    @api.route("POST", "/write-and-read", admin=False, body=WriteBody, headers=IDEMPOTENT, answer=WriteAndReadAnswer)
    def write_and_read(body: WriteBody) -> Response:
        """Write, then read from every replica at once, without waiting."""
        return measured(client.write_and_read(body, write_id()))

    takes: dict[str, Any] = {"body": WriteBody, "query": TimeoutQuery, "headers": IDEMPOTENT}

    @api.route("POST", "/write-and-wait", admin=False, **takes, answer=WriteAndWaitAnswer)
    def write_and_wait(body: WriteBody, query: TimeoutQuery) -> Response:
        """Write, and measure how long it takes until every replica has it."""
        found = write_id()
        with places.one():
            return measured(client.write_and_wait(body, found, query.timeout_ms))

    takes |= {"query": AcksQuery, "headers": IDEMPOTENT | session.TOKEN}

    @api.route("POST", "/write", admin=False, **takes, answer=TokenAnswer)
    def write(body: WriteBody, query: AcksQuery) -> Response:
        """Write a key. The answer has the token of the write; a cookie keeps it as well."""
        before = _session(directory)
        with places.one():
            written = client.write(body, write_id(), query)
        after = before.after_write(Position.parse(written["position"]))
        response = api.reply({**written, "token": after.token})
        response.headers["Set-Cookie"] = after.cookie
        return response


def add_reads(api: Api, reader: Reader, directory: Directory, places: Places) -> None:
    @api.route("GET", "/read/<key:key>", admin=False, query=LevelQuery, headers=session.TOKEN, answer=ReadAnswer)
    def read(key: str, query: LevelQuery) -> Response:
        """Read a key at a consistency level; a session continues from the Lab-Position header or the cookie."""
        before = _session(directory, required=query.level == "session")
        with places.one():
            answer = reader.read(key, query, before)
        after = before.after_read(shown(Position.parse(answer["position"]), answer["version"]))
        headers = {"Lab-Source": answer["source"], "Lab-Position": answer["position"], "Set-Cookie": after.cookie}
        if answer["version"] == 0:
            evidence = {name: found for name, found in answer.items() if name != "value"}
            problem = Problem(404, "no-such-key", "No such key", f"{answer['source']} does not have it.", **evidence)
            problem.headers |= headers
            raise problem
        response = api.reply(answer)
        response.headers.update(headers)
        return response


def _session(directory: Directory, *, required: bool = False) -> session.Session:
    return session.session_of(request.headers.get(session.HEADER), request.cookies, directory.lab(), required=required)
