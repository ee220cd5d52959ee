"""A replica's endpoints."""

from typing import Annotated, Any, NoReturn

from flask import Flask, Response
from prometheus_client import CollectorRegistry
from pydantic import Field
from typing_extensions import TypedDict

from broker.position import Position
from nodes.http.api import Api, Query, TimeoutMs
from nodes.http.app import add_health, make_app
from nodes.http.openapi import Answer
from nodes.http.problem import Problem, maps
from nodes.http.reading import PositionText, add_reads
from nodes.http.times import ms, timestamp
from nodes.http.writing import AcksQuery
from nodes.replica.faults import FAULTS, FaultBody, FaultNotActive, FaultShown, NothingToCorrupt
from nodes.replica.history import Applied, HistoryBusy
from nodes.replica.parts import make_parts
from nodes.replica.replica import Replica
from nodes.runtime import tracing as traces
from nodes.runtime.config import ReplicaConfig

maps(HistoryBusy, 503, "too-many-waiters", "Too many waiters", "not_applied")
maps(FaultNotActive, 404, "no-such-fault", "No such fault")
maps(NothingToCorrupt, 409, "nothing-to-corrupt", "Nothing to corrupt")


class AppliedQuery(Query):
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
    replica = Replica(make_parts(config, tracing, registry))
    app, api = make_app(config, tracing, registry)
    app.extensions["node"] = replica

    @app.after_request
    def mark(response: Response) -> Response:
        if replica.resyncing and "Lab-Position" in response.headers:
            response.headers["Lab-Resyncing"] = replica.resyncing
        return response

    add_health(api, config, replica.health)
    add_reads(api, config.node_id, replica)
    _add_applied(api, config.node_id, replica)
    _add_faults(api, config.node_id, replica)
    _refuse_writes(api, config)
    return app


def _add_applied(api: Api, source: str, replica: Replica) -> None:
    @api.route("GET", "/applied", admin=False, query=AppliedQuery, answer=AppliedAnswer)
    def applied(query: AppliedQuery) -> AppliedAnswer:
        """Recently applied entries, with their publish, due and apply times."""
        if query.cursor:
            found, cursor = replica.applied_since(query.cursor, query.limit, query.timeout_ms / 1000)
        else:
            found, cursor = replica.applied_after(Position.parse(query.after), query.limit)
        return {
            "source": source,
            "position": str(replica.state().position),
            "delivered": str(replica.delivered()),
            "cursor": cursor,
            "applied": [_entry(one) for one in found],
        }


def _entry(applied: Applied) -> AppliedEntry:
    return {
        "position": str(applied.position),
        "published_at": timestamp(applied.at_us),
        "due_at": timestamp(applied.due_us),
        "applied_at": timestamp(applied.applied_us),
        "applied_after_ms": ms(applied.applied_us - applied.at_us),
        "lateness_ms": ms(applied.applied_us - applied.due_us),
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
