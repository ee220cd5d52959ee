"""The running lab as an experiment sees it: URLs of its nodes, and settings of its replicas."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from broker.delay.models import from_json
from broker.registry import Settings
from nodes.http.peers import Ask, Peers, Reply, failure
from nodes.runtime.config import WorkerConfig


class TargetError(Exception):
    """Raised when a node refuses or does not answer a request that an experiment needs."""


class Target:
    """Primary, replicas and client. Methods raise ``TargetError``."""

    def __init__(self, config: WorkerConfig, peers: Peers) -> None:
        self.primary_url = config.primary_url
        self.client_url = config.client_url
        self.peers = peers
        self._admin = {"Authorization": f"Bearer {config.admin_token}"} if config.admin_token else {}

    def replicas(self) -> dict[str, str]:
        found = self._ask(Ask(f"{self.primary_url}/replicas")).body["replicas"]
        return {replica["replica_id"]: replica["url"] for replica in found}

    def head(self) -> tuple[int, int]:
        """Epoch and version of the newest write."""
        found = self._ask(Ask(f"{self.primary_url}/version")).body
        return found["epoch"], found["version"]

    def settings(self) -> dict[str, Settings]:
        found = self._ask(Ask(f"{self.primary_url}/admin/replication-delays", headers=self._admin)).body
        return {
            str(urlsplit(url).hostname): Settings(
                from_json(model), found["ack_delays"][url], found["orders"][url], found["seeds"][url]
            )
            for url, model in found["models"].items()
        }

    def change(self, replica: str, settings: dict[str, Any]) -> None:
        body = {"replica": replica, **settings}
        self._ask(Ask(f"{self.primary_url}/admin/replication-delay", "POST", body=body, headers=self._admin))

    def _ask(self, ask: Ask) -> Reply:
        reply = self.peers.attempt(ask)
        if isinstance(reply, Reply) and reply.status == 200:
            return reply
        raise TargetError(f"{ask.url}: {failure(reply)}")
