"""Faults through the client: begun, shown and ended on any replica, or on all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from nodes.client.directory import Directory, Known
from nodes.http.api import Api, Body, OpenBody
from nodes.http.peers import Ask, PeerError, PeerRefused, Peers, Reply, segment
from nodes.http.problem import Problem


class FaultOrder(OpenBody):
    """On which replica; the rest is the fault as the replica takes it."""

    replica: str
    fault: str


class ReplicaName(Body):
    """Which replica."""

    replica: str


class FaultsByReplica(TypedDict):
    """What each replica answered, or ``error`` for one that did not."""

    replicas: dict[str, dict[str, Any]]


class Faults:
    """Passes on to the replicas, and the token only to those that know it. Raises ``PeerRefused`` or ``Problem``."""

    def __init__(self, peers: Peers, directory: Directory, token: str | None) -> None:
        self._peers = peers
        self._directory = directory
        self._token = token

    def begin(self, order: FaultOrder) -> dict[str, Any]:
        """Begin a fault on a replica."""
        fault = order.model_dump(exclude={"replica"})
        return {"replica": order.replica, **self._one(order.replica, "POST", "/admin/faults", fault)}

    def end(self, replica: str, fault: str | None) -> dict[str, Any]:
        """End a fault of a replica, or all of them."""
        path = "/admin/faults" if fault is None else f"/admin/faults/{segment(fault)}"
        return {"replica": replica, **self._one(replica, "DELETE", path)}

    def resync(self, replica: str) -> dict[str, Any]:
        """Have a replica take a snapshot."""
        return {"replica": replica, **self._one(replica, "POST", "/admin/resync")}

    def all(self, method: str) -> FaultsByReplica:
        """Show the faults of every replica, or end them."""
        known = {found.replica: found for found in self._directory.now()}
        asks = {
            name: self._ask(found, method, "/admin/faults") for name, found in known.items() if self._may_ask(found)
        }
        replies = self._peers.ask_all(asks)
        return {"replicas": {name: _shown(replies.get(name, _unproven(found))) for name, found in known.items()}}

    def _one(self, replica: str, method: str, path: str, body: Any = None) -> Mapping[str, Any]:
        known = {found.replica: found for found in self._directory.now()}
        if replica not in known:
            detail = f"There is no replica {replica[:100]!r}; there are {', '.join(known) or 'none yet'}."
            raise Problem(422, "unknown-replica", "Unknown replica", detail, known_replicas=list(known))
        if not self._may_ask(known[replica]):
            raise Problem(503, "unproven-replica", "Unproven replica", f"{_unproven(known[replica])}.")
        try:
            reply = self._peers.ask(self._ask(known[replica], method, path, body))
        except PeerError as error:
            problem = Problem(503, "node-unavailable", "The node is unavailable", f"{error}.")
            problem.headers["Retry-After"] = "1"
            raise problem from error
        if reply.status != 200:
            raise PeerRefused(reply.status, reply.body)
        return reply.body

    def _may_ask(self, known: Known) -> bool:
        return known.proven or self._token is None

    def _ask(self, known: Known, method: str, path: str, body: Any = None) -> Ask:
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        return Ask(f"{known.url}{path}", method, body=body, headers=headers)


def add_faults(api: Api, faults: Faults) -> None:
    """Add the endpoints."""

    @api.route("POST", "/faults", admin=True, body=FaultOrder, answer=dict[str, Any])
    def begin(body: FaultOrder) -> dict[str, Any]:
        """Make something wrong with a replica. GET /faults lists what can be, with its parameters."""
        return faults.begin(body)

    @api.route("GET", "/faults", admin=True, answer=FaultsByReplica)
    def show() -> FaultsByReplica:
        """What is wrong with each replica on purpose, and what could be."""
        return faults.all("GET")

    @api.route("DELETE", "/faults/<replica>", admin=True, answer=dict[str, Any])
    def end_all(replica: str) -> dict[str, Any]:
        """End every fault of a replica."""
        return faults.end(replica, None)

    @api.route("DELETE", "/faults/<replica>/<fault>", admin=True, answer=dict[str, Any])
    def end(replica: str, fault: str) -> dict[str, Any]:
        """End one fault of a replica."""
        return faults.end(replica, fault)

    @api.route("POST", "/faults/reset", admin=True, answer=FaultsByReplica)
    def reset() -> FaultsByReplica:
        """End every fault of every replica."""
        return faults.all("DELETE")

    @api.route("POST", "/resync", admin=True, body=ReplicaName, answer=dict[str, Any])
    def resync(body: ReplicaName) -> dict[str, Any]:
        """Replace a replica's content by a snapshot of the primary's: what repairs one that has diverged."""
        return faults.resync(body.replica)


def _unproven(known: Known) -> PeerError:
    """Whoever reaches the log server can register any URL; such a one is not sent the token."""
    detail = f"{known.replica} at {known.url} has not proved that it knows LAB_ADMIN_TOKEN, which every node is given"
    return PeerError(detail, sent=False)


def _shown(reply: Reply | PeerError) -> dict[str, Any]:
    if isinstance(reply, PeerError):
        return {"error": str(reply)}
    return reply.body if reply.status == 200 else {"error": str(reply.body.get("detail", reply.status))}
