"""The running lab as an experiment sees it: URLs of its nodes, and settings of its replicas."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlsplit

from broker.delay import DelayModel, Order, from_json
from nodes.http.peers import Ask, PeerError, Peers, Reply
from nodes.runtime.config import WorkerConfig


class TargetError(Exception):
    """Raised when a node refuses or does not answer a request that an experiment needs."""


class Setting(NamedTuple):
    """A replica's current settings."""

    model: DelayModel
    ack_delay_ms: float
    order: Order
    seed: int

    def as_json(self) -> dict[str, Any]:
        """The body of a request that sets them."""
        return {**self._asdict(), "model": self.model.as_json()}


class Target:
    """Primary, replicas and client. Methods raise ``TargetError``."""

    def __init__(self, config: WorkerConfig, peers: Peers) -> None:
        self.primary_url = config.primary_url
        self.client_url = config.client_url
        self.peers = peers
        self._admin = {"Authorization": f"Bearer {config.admin_token}"} if config.admin_token else {}

    def replicas(self) -> dict[str, str]:
        """The URL of each replica, by id."""
        found = self._ask(Ask(f"{self.primary_url}/replicas")).body["replicas"]
        return {replica["replica_id"]: replica["url"] for replica in found}

    def head(self) -> tuple[int, int]:
        """Epoch and version of the newest write."""
        found = self._ask(Ask(f"{self.primary_url}/version")).body
        return found["epoch"], found["version"]

    def settings(self) -> dict[str, Setting]:
        """The current settings, by replica."""
        found = self._ask(Ask(f"{self.primary_url}/admin/replication-delays", headers=self._admin)).body
        return {
            str(urlsplit(url).hostname): Setting(
                from_json(model), found["ack_delays"][url], found["orders"][url], found["seeds"][url]
            )
            for url, model in found["models"].items()
        }

    def change(self, replica: str, settings: dict[str, Any]) -> None:
        """Change settings of a replica."""
        body = {"replica": replica, **settings}
        self._ask(Ask(f"{self.primary_url}/admin/replication-delay", "POST", body=body, headers=self._admin))

    def _ask(self, ask: Ask) -> Reply:
        try:
            reply = self.peers.ask(ask)
        except PeerError as error:
            raise TargetError(str(error)) from error
        if reply.status != 200:
            raise TargetError(f"{ask.url} answered {reply.status}: {reply.body.get('detail')}")
        return reply
