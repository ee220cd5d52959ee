"""The lab's settings through the client: delays and resets, which are the primary's to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import request

from nodes.http.api import Api, OpenBody
from nodes.http.peers import Ask, PeerError, PeerRefused, Peers
from nodes.http.problem import Problem

_RESET_MS = 8000


class DelayOrder(OpenBody):
    """Of which replica; the rest is as the primary takes it."""

    replica: str


class Controls:
    """Passes on to the primary. Methods raise ``PeerRefused`` or ``Problem``."""

    def __init__(self, peers: Peers, primary_url: str) -> None:
        self._peers = peers
        self._url = primary_url

    def delays(self) -> dict[str, Any]:
        """What the primary says of all delays."""
        return self._ask("GET", "/admin/replication-delays")

    def change(self, order: DelayOrder) -> dict[str, Any]:
        """Change a replica's delay."""
        return self._ask("POST", "/admin/replication-delay", order.model_dump())

    def reset(self) -> dict[str, Any]:
        """Empty the lab."""
        return self._ask("POST", "/admin/reset", wait_ms=_RESET_MS)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, wait_ms: float = 0) -> dict[str, Any]:
        given = request.headers.get("Authorization")
        headers = {"Authorization": given} if given else {}
        try:
            reply = self._peers.ask(Ask(f"{self._url}{path}", method, body=body, headers=headers, wait_ms=wait_ms))
        except PeerError as error:
            outcome = "unknown" if error.sent else "not_applied"
            raise Problem(
                503, "primary-unavailable", "The primary is unavailable", f"{error}.", outcome=outcome
            ) from error
        if reply.status != 200:
            raise PeerRefused(reply.status, reply.body)
        return reply.body


def add_controls(api: Api, controls: Controls) -> None:
    """Add the endpoints."""

    @api.route("GET", "/delays", admin=True, answer=dict[str, Any])
    def delays() -> dict[str, Any]:
        """The delays in force, as the primary has them."""
        return controls.delays()

    @api.route("POST", "/delays", admin=True, body=DelayOrder, answer=dict[str, Any])
    def change_delay(body: DelayOrder) -> dict[str, Any]:
        """Change one replica's delay; it also counts for entries already waiting."""
        return controls.change(body)

    @api.route("POST", "/reset", admin=True, answer=dict[str, Any])
    def reset() -> dict[str, Any]:
        """Empty the lab: a new epoch."""
        return controls.reset()
