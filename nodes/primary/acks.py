"""Waiting until replicas have applied a write: how many are asked for, and who has."""

from __future__ import annotations

from broker.errors import LogError
from broker.registry import Member, Registry
from nodes.http.peers import Ask, Peers, Reply
from nodes.http.problem import Problem, unavailable
from nodes.http.writing import AcksQuery, WriteAnswer


class Acks:
    """Asks the replicas for the position of a write; each answers when it has it, so nobody polls."""

    def __init__(self, registered: Registry, peers: Peers) -> None:
        self._registered = registered
        self._peers = peers

    def require(self, count: int) -> list[Member]:
        """The replicas to ask. Raises ``Problem`` 400, before anything is written, where there are fewer."""
        if count == 0:
            return []
        try:
            members = self._registered.members()
        except LogError as error:
            problem = unavailable(error)
            problem.extra["outcome"] = "not_applied"  # whatever became of this question, nothing has been written
            raise problem from error
        if count > len(members):
            detail = f"acks: {count} replicas are asked for, and {len(members)} are registered."
            raise Problem(400, "invalid-parameter", "Invalid parameter", detail)
        return members

    def complete(self, written: WriteAnswer, members: list[Member], query: AcksQuery) -> WriteAnswer:
        """Wait until enough of the replicas have applied the write, or the time is up, and say which have."""
        if query.acks == 0:
            return written
        reached = self._reached(members, written["position"], query)
        return {**written, "acks_reached": len(reached), "acknowledged_by": reached}

    def _reached(self, members: list[Member], position: str, query: AcksQuery) -> list[str]:
        fields = {"min_position": position, "timeout_ms": str(query.timeout_ms)}
        asks = {
            member.replica: Ask(f"{member.url}/version", fields=fields, wait_ms=query.timeout_ms) for member in members
        }
        reached: list[str] = []
        for replica, reply in self._peers.ask_each(asks, query.timeout_ms / 1000):
            if isinstance(reply, Reply) and reply.body.get("reached"):
                reached.append(replica)
            if len(reached) == query.acks:
                break
        return reached
