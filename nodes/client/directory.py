"""Which lab this is, and where its replicas are: as the primary reports it, and remembered while it is away."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from broker.delay.models import Order
from nodes.http.peers import Ask, PeerError, Peers
from nodes.http.problem import Problem


class Known(NamedTuple):
    """A registered replica, by its id; the rest as it was when this was read."""

    replica: str
    url: str
    lag_ms: float
    order: Order
    diverged: bool = False
    faults: tuple[str, ...] = ()
    resyncing: str = ""
    proven: bool = False


class Directory:
    """The registered replicas, remembered so that reads do not depend on the primary. Thread-safe."""

    def __init__(self, peers: Peers, primary_url: str) -> None:
        self._peers = peers
        self._url = f"{primary_url}/replicas"
        self._lock = threading.Lock()
        self._known: list[Known] = []
        self._lab = ""

    def lab(self) -> str:
        """The id of the lab. Raises ``Problem`` 503 if the primary has never reported it."""
        if not self._lab:
            self.now()
        if not self._lab:
            detail = "The primary has not reported yet which lab this is."
            problem = Problem(503, "primary-unavailable", "The primary is unavailable", detail, outcome="not_applied")
            problem.headers["Retry-After"] = "1"
            raise problem
        return self._lab

    def replicas(self) -> list[Known]:
        """The replicas as last reported. The primary is asked only as long as none is known."""
        with self._lock:
            known = self._known
        return known or self.now()

    def now(self) -> list[Known]:
        """The replicas as of now, or as last reported if the primary does not answer."""
        found = self.ask()
        with self._lock:
            if found is not None:
                self._known = found
            return self._known

    def ask(self) -> list[Known] | None:
        """The replicas as of now, or ``None`` where the primary does not say."""
        try:
            reply = self._peers.ask(Ask(self._url))
        except PeerError:
            return None
        found: list[dict[str, Any]] | None = reply.body.get("replicas") if reply.status == 200 else None
        if found is None:
            return None
        self._lab = reply.body["lab"]
        return [
            Known(
                replica=replica["replica_id"],
                url=replica["url"],
                lag_ms=replica["lag_ms"],
                order=replica["order"],
                diverged=replica["diverged"],
                faults=tuple(replica["faults"]),
                resyncing=replica["resyncing"],
                proven=replica["proven"],
            )
            for replica in found
        ]
