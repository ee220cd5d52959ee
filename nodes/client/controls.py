"""Controls of the lab: delays, predictions and resets through the primary; faults through the replicas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from broker.delay.models import DELAY_MS_MAX
from broker.delay.prediction import moments, predict, replicated
from nodes.client.directory import Directory, KnownReplica
from nodes.client.errors import NoReplicas, UnknownReplica, UnprovenReplica
from nodes.client.log_faults import ISOLATE, LOG, LogFault, LogFaults
from nodes.http.api import Body, OpenBody, Query, parsed
from nodes.http.peers import Ask, Peers, body_or_error, segment

_RESET_MS = 8000


class DelayChange(OpenBody):
    replica: str


class FaultStart(OpenBody):
    replica: str
    fault: str


class ReplicaName(Body):
    replica: str


class FaultsByReplica(TypedDict):
    """``log``: the faults of the log server, if it has Sentinels."""

    replicas: dict[str, dict[str, Any]]
    log: NotRequired[dict[str, Any]]


class PredictionQuery(Query):
    writes_per_second: Annotated[float, Field(ge=0, le=100_000)] = 0
    until_ms: Annotated[float, Field(gt=0, le=DELAY_MS_MAX)] = 3000
    points: Annotated[int, Field(ge=2, le=201)] = 41


class PredictionAnswer(TypedDict):
    """At each ``t_ms`` after a write: P(a read of a random replica is stale), and P(every replica has it)."""

    writes_per_second: float
    t_ms: list[float]
    stale: list[float]
    converged: list[float]


@dataclass(frozen=True)
class Controls:
    """Requests to the primary, with the caller's Authorization header, which the primary checks."""

    peers: Peers
    primary_url: str
    authorization: Callable[[], str | None]

    def delays(self) -> dict[str, Any]:
        """The current delays, as the primary reports them."""
        return self._require(Ask("/admin/replication-delays"))

    def change(self, body: DelayChange) -> dict[str, Any]:
        """Change one replica's delay; it also applies to entries already waiting."""
        return self._require(Ask("/admin/replication-delay", "POST", body=body.model_dump()))

    def reset(self) -> dict[str, Any]:
        """Empty the lab: a new epoch."""
        return self._require(Ask("/admin/reset", "POST", wait_ms=_RESET_MS))

    def prediction(self, query: PredictionQuery) -> PredictionAnswer:
        """How likely a read is stale by the time since the write, from the current delays alone."""
        replicas = replicated(self.delays(), query.writes_per_second)
        if not replicas:
            raise NoReplicas("No replica is registered yet")
        curve = predict(replicas, moments(query.until_ms, query.points))
        return {
            "writes_per_second": query.writes_per_second,
            "t_ms": curve.t_ms,
            "stale": [round(share, 6) for share in curve.stale],
            "converged": [round(share, 6) for share in curve.converged],
        }

    def _require(self, ask: Ask) -> dict[str, Any]:
        given = self.authorization()
        headers = {"Authorization": given} if given else {}
        return self.peers.require(ask._replace(url=f"{self.primary_url}{ask.url}", headers=headers), "primary").body


@dataclass(frozen=True)
class Faults:
    peers: Peers
    directory: Directory
    token: str | None
    log: LogFaults

    def start(self, body: FaultStart) -> dict[str, Any]:
        """Inject a fault into a replica, or into the log server: replica "log".

        GET /faults lists the faults, with their parameters.
        """
        if body.replica == LOG:
            return self.log.start(parsed(LogFault, body.model_dump(), 422, "invalid-field"))
        return self._one(body.replica, "POST", "/admin/faults", body.model_dump(exclude={"replica"}))

    def end_all(self, replica: str) -> dict[str, Any]:
        """End every fault of a replica, or of the log server."""
        if replica == LOG:
            return {"replica": LOG, "ended": self.log.end()}
        return self._one(replica, "DELETE", "/admin/faults")

    def end(self, replica: str, fault: str) -> dict[str, Any]:
        """End one fault of a replica, or of the log server."""
        if (replica, fault) == (LOG, ISOLATE):
            return self.end_all(replica)
        return self._one(replica, "DELETE", f"/admin/faults/{segment(fault)}")

    def resync(self, body: ReplicaName) -> dict[str, Any]:
        """Replace a replica's content with a snapshot of the primary's, which repairs a diverged replica."""
        return self._one(body.replica, "POST", "/admin/resync")

    def show(self) -> FaultsByReplica:
        """The active faults of each replica, and the available ones."""
        return self._with_log(self._all("GET"), self.log.show())

    def reset(self) -> FaultsByReplica:
        """End every fault of every replica and of the log server."""
        return self._with_log(self._all("DELETE"), {"ended": self.log.end()})

    def _with_log(self, found: FaultsByReplica, of_log: dict[str, Any]) -> FaultsByReplica:
        return {**found, "log": of_log} if self.log.are_possible else found

    def _one(self, replica: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        known = self.directory.now()
        if replica not in known:
            raise UnknownReplica(replica, known)
        if (refused := self._refusal(known[replica])) is not None:
            raise refused
        return {"replica": replica, **self.peers.require(self._ask(known[replica], method, path, body)).body}

    def _all(self, method: str) -> FaultsByReplica:
        known = self.directory.now()
        refused = {name: self._refusal(found) for name, found in known.items()}
        asks = {name: self._ask(found, method, "/admin/faults") for name, found in known.items() if not refused[name]}
        replies = self.peers.ask_all(asks)
        return {"replicas": {name: body_or_error(refused[name] or replies[name]) for name in known}}

    def _refusal(self, known: KnownReplica) -> UnprovenReplica | None:
        if known.proven or self.token is None:
            return None
        who = f"{known.replica_id} at {known.url}"
        return UnprovenReplica(f"{who} has not proved that it has LAB_ADMIN_TOKEN; set the same token on every node")

    def _ask(self, known: KnownReplica, method: str, path: str, body: Any = None) -> Ask:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return Ask(f"{known.url}{path}", method, body=body, headers=headers)
