"""A replica's endpoints."""

import time
from typing import Annotated, Any, NoReturn, NotRequired, cast

from flask import Flask, Response
from prometheus_client import CollectorRegistry
from pydantic import Field
from typing_extensions import TypedDict

from broker.position import Position
from nodes.http.api import Api, Query, TimeoutMs
from nodes.http.app import add_health, make_app
from nodes.http.openapi import Answer
from nodes.http.problem import Problem, maps
from nodes.http.reading import PositionText, VersionAnswer, WaitQuery, add_reads, since_commit
from nodes.http.reading import version as version_of
from nodes.http.times import ms, timestamp
from nodes.http.writing import AcksQuery
from nodes.replica.faults import FAULTS, FaultBody, FaultNotActive, FaultShown, NothingToCorrupt
from nodes.replica.history import Done, HistoryBusy, Recent
from nodes.replica.parts import make_parts
from nodes.replica.replica import Replica
from nodes.runtime import tracing as traces
from nodes.runtime.config import ReplicaConfig

maps(HistoryBusy, 503, "too-many-waiters", "Too many waiters", "not_applied")
maps(FaultNotActive, 404, "no-such-fault", "No such fault")
maps(NothingToCorrupt, 409, "nothing-to-corrupt", "Nothing to corrupt")


class ReplicaWaitQuery(WaitQuery):
    min_acknowledged: PositionText | None = None


class ReplicaVersionAnswer(VersionAnswer):
    """``acknowledged_position``: everything up to it is applied and acknowledged; ``null`` until that is known after a
    start. ``waiting``: delivered entries that are not due; ``applied_unacknowledged``: applied ones that are pending.
    """

    acknowledged_position: str | None
    waiting: int
    applied_unacknowledged: int
    acknowledged_at: NotRequired[str | None]
    acknowledged_after_ms: NotRequired[float | None]


class RecentQuery(Query):
    """The start, a position or the cursor of an earlier response, and the maximum number of entries.

    With a cursor, the request waits for an entry, at most ``timeout_ms``.
    """

    after: PositionText = "0-0"
    cursor: Annotated[str, Field(pattern=r"^([0-9a-f]{8}-[0-9]{1,15})?$")] = ""
    timeout_ms: TimeoutMs = 0
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class AppliedEntry(TypedDict):
    """Times are by the log's clock."""

    position: str
    published_at: str | None
    due_at: str | None
    applied_at: str | None
    applied_after_ms: float
    lateness_ms: float


class AppliedAnswer(TypedDict):
    """Recently applied entries in order of application; ``delivered``: the newest delivered one."""

    source: str
    position: str
    delivered: str
    cursor: str
    applied: list[AppliedEntry]


class AcknowledgedEntry(TypedDict):
    """Times are by the log's clock; ``acknowledged_after_ms``: since the commit."""

    position: str
    published_at: str | None
    due_at: str | None
    acknowledged_at: str | None
    acknowledged_after_ms: float
    lateness_ms: float


class AcknowledgedAnswer(TypedDict):
    """Recently acknowledged entries in order of acknowledgement."""

    source: str
    position: str | None
    cursor: str
    acknowledged: list[AcknowledgedEntry]


class FaultsAnswer(TypedDict):
    """The active faults of a replica, and the available ones: the parameters of each as JSON schema."""

    source: str
    faults: list[FaultShown]
    available: dict[str, Any]


class EndedAnswer(TypedDict):
    source: str
    ended: list[str]


class ResyncAnswer(TypedDict):
    source: str
    status: str


def create_app(config: ReplicaConfig) -> Flask:
    """A replica as a WSGI app, with its node in ``app.extensions["node"]``. Raises ``StoreError``."""
    registry = CollectorRegistry()
    tracing = traces.make(config)
    parts = make_parts(config, tracing, registry, monotonic_ns=time.monotonic_ns, wall_ns=time.time_ns)
    replica = Replica(parts)
    app, api = make_app(config, tracing, registry)
    app.extensions |= {"node": replica, "link": parts.link}

    @app.after_request
    def mark(response: Response) -> Response:
        if replica.resyncing and "Lab-Position" in response.headers:
            response.headers["Lab-Resyncing"] = replica.resyncing
        return response

    add_health(api, config, replica.health)
    add_reads(api, config.node_id, replica)
    _add_progress(api, config.node_id, replica)
    _add_faults(api, config.node_id, replica)
    _refuse_writes(api, config)
    return app


def _add_progress(api: Api, source: str, replica: Replica) -> None:
    def recent(of: Recent, query: RecentQuery) -> tuple[list[Done], str]:
        if query.cursor:
            return replica.since(of, query.cursor, query.limit, query.timeout_ms / 1000)
        return replica.after(of, Position.parse(query.after), query.limit)

    @api.route("GET", "/version", admin=False, query=ReplicaWaitQuery, answer=ReplicaVersionAnswer)
    def version(query: ReplicaWaitQuery) -> ReplicaVersionAnswer:
        """The replica's position, once it is reached, or once the entry at min_acknowledged is acknowledged."""
        target = None if query.min_acknowledged is None else Position.parse(query.min_acknowledged)
        started = time.monotonic()
        reached = target is None or replica.wait_for_acknowledgement(target, query.timeout_ms / 1000)
        left_ms = max(0, query.timeout_ms - round((time.monotonic() - started) * 1000))
        answer: Any = version_of(source, replica, query.model_copy(update={"timeout_ms": left_ms}))
        if target is not None:
            applied_at, applied_after_ms = since_commit(replica.reached_us(target))
            acknowledged_at, acknowledged_after_ms = since_commit(replica.acknowledged_us(target))
            answer = {"applied_at": applied_at, "applied_after_ms": applied_after_ms, **answer}
            answer |= {"acknowledged_at": acknowledged_at, "acknowledged_after_ms": acknowledged_after_ms}
            answer["reached"] = reached and answer.get("reached", True)
        waiting, unacknowledged = replica.counts()
        position = replica.acknowledged()
        answer |= {"waiting": waiting, "applied_unacknowledged": unacknowledged}
        answer["acknowledged_position"] = position and str(position)
        return cast("ReplicaVersionAnswer", answer)

    @api.route("GET", "/applied", admin=False, query=RecentQuery, answer=AppliedAnswer)
    def applied(query: RecentQuery) -> AppliedAnswer:
        """Recently applied entries, with their publish, due and apply times."""
        found, cursor = recent(replica.parts.applied, query)
        return {
            "source": source,
            "position": str(replica.state().position),
            "delivered": str(replica.delivered()),
            "cursor": cursor,
            "applied": [_entry("applied", one) for one in found],
        }

    @api.route("GET", "/acknowledged", admin=False, query=RecentQuery, answer=AcknowledgedAnswer)
    def acknowledged(query: RecentQuery) -> AcknowledgedAnswer:
        """Recently acknowledged entries, with their publish, due and acknowledgement times."""
        found, cursor = recent(replica.parts.acknowledged, query)
        position = replica.acknowledged()
        return {
            "source": source,
            "position": position and str(position),
            "cursor": cursor,
            "acknowledged": [_entry("acknowledged", one) for one in found],
        }


def _entry(what: str, done: Done) -> Any:
    return {
        "position": str(done.position),
        "published_at": timestamp(done.at_us),
        "due_at": timestamp(done.due_us),
        f"{what}_at": timestamp(done.done_us),
        f"{what}_after_ms": ms(done.done_us - done.at_us),
        "lateness_ms": ms(done.done_us - done.due_us),
    }


def _add_faults(api: Api, source: str, replica: Replica) -> None:
    @api.route("POST", "/admin/faults", admin=True, body=FaultBody, answer=FaultShown)
    def start(body: FaultBody) -> FaultShown:
        """Inject a fault into this replica, until it is ended or its duration has passed."""
        return replica.faults.start(body.root)

    @api.route("GET", "/admin/faults", admin=True, answer=FaultsAnswer)
    def show() -> FaultsAnswer:
        """The active faults of this replica, and the available ones with their parameters."""
        available = {name: kind.model_json_schema() for name, kind in FAULTS.items()}
        return {"source": source, "faults": replica.faults.show(), "available": available}

    @api.route("DELETE", "/admin/faults", admin=True, answer=EndedAnswer)
    def end_all() -> EndedAnswer:
        """End every fault of this replica."""
        return {"source": source, "ended": replica.faults.end(None)}

    @api.route("DELETE", "/admin/faults/<key:fault>", admin=True, answer=EndedAnswer)
    def end(fault: str) -> EndedAnswer:
        """End one fault."""
        return {"source": source, "ended": replica.faults.end(fault)}

    @api.route("POST", "/admin/resync", admin=True, answer=ResyncAnswer)
    def resync() -> ResyncAnswer:
        """Replace the content with a snapshot of the primary's, once its delay has passed."""
        replica.parts.resync_requested.set()
        return {"source": source, "status": "resync requested"}


def _refuse_writes(api: Api, config: ReplicaConfig) -> None:
    def refuse(**_: Any) -> NoReturn:
        """Reject a write, and name the primary."""
        detail = f"{config.node_id} is a replica and accepts no writes; write to the primary at {config.primary_url}."
        raise Problem(403, "not-the-primary", "Not the primary", detail, primary_url=config.primary_url)

    for method, path in (("POST", "/data"), ("POST", "/data/batch"), ("DELETE", "/data/<key:key>")):
        api.route(method, path, admin=False, query=AcksQuery, answer=Answer(Problem, 403))(refuse)
