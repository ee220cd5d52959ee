"""Where the replicas are: as registered with the primary, and remembered while it is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from nodes.peers import Ask, PeerError, Peers

_FRESH_SECONDS = 1.0


class Known(NamedTuple):
    """A registered replica, by its id; the rest as it was when this was read."""

    replica: str
    url: str
    lag_ms: float
    in_log_order: bool
    diverged: bool = False
    faults: tuple[str, ...] = ()
    resyncing: str = ""
    proven: bool = False


class Directory:
    """The registered replicas, remembered for a second by those who may miss one that is new. Thread-safe."""

    def __init__(self, peers: Peers, primary_url: str, monotonic: Callable[[], float]) -> None:
        self._peers = peers
        self._url = f"{primary_url}/replicas"
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: list[Known] = []
        self._read_at = float("-inf")

    def replicas(self) -> list[Known]:
        """The replicas as of about a second ago, or as last heard of where the primary does not answer."""
        with self._lock:
            fresh = self._known and self._monotonic() - self._read_at < _FRESH_SECONDS
            known = self._known
        return known if fresh else self.now()

    def now(self) -> list[Known]:
        """The replicas as of now, or as last heard of where the primary does not answer."""
        found = self.ask()
        with self._lock:
            if found is not None:
                self._known = found
            self._read_at = self._monotonic()
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
        return [
            Known(
                replica=replica["replica_id"],
                url=replica["url"],
                lag_ms=replica["lag_ms"],
                in_log_order=replica["order"] == "log",
                diverged=replica["diverged"],
                faults=tuple(replica["faults"]),
                resyncing=replica["resyncing"],
                proven=replica["proven"],
            )
            for replica in found
        ]
