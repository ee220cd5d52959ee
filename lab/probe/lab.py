"""A node of the lab, whose delays are known: the calibration of the probe."""

import base64
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean
from typing import Any
from urllib.parse import urlsplit

from broker.delay.models import from_json
from broker.delay.prediction import Replicated
from lab import client
from lab.local.state import LabState
from lab.probe.certainty import TIMES_SECONDS
from lab.probe.http import Connection
from lab.probe.instrument import Replica
from lab.probe.target import PREFIX, Description, NotNow, Settings, Shown, Target, TargetError
from nodes.http import strict_json

_DELAY = "delay"
_AFTER = f"{PREFIX}:"  # a key's name begins with it; a page of data begins after it


def nodes(running: LabState) -> tuple[Callable[[], Target], list[Callable[[], Target]]]:
    """Return functions that make the primary and the replicas of a running lab."""
    primary = running.node_or_none("primary")
    if primary is None:
        raise TargetError("the lab has no primary")
    replicas = [partial(node, found.url, primary.url) for found in running.nodes if found.role == "replica"]
    return partial(node, primary.url, primary.url), [*replicas]


def node(address: str, primary_url: str) -> "LabNode":
    return LabNode(address, primary_url)


def configured(replica: Replica, rate: float) -> list[tuple[float, float]]:
    """Return P(stale) at each of ``TIMES_SECONDS`` as a replica's settings predict it: at least, and at most.

    A delay starts at the commit, which lies between the sending of the write and its acknowledgement.
    """
    values = replica.settings.values
    model = Replicated(
        from_json(json.loads(values[_DELAY])), "arrival" if values["order"] == "arrival" else "log", rate
    )
    took = [one.acked - one.sent for one in replica.brackets] or [0.0]

    def stale(seconds: float) -> float:
        return 1 - model.fresh(seconds * 1000)

    return [(mean(stale(at + one) for one in took), stale(at)) for at in TIMES_SECONDS]


class LabNode:
    """``primary_url`` has the configured delays, and differs from the node's own URL for a replica."""

    def __init__(self, url: str, primary_url: str) -> None:
        self.name = url
        self._primary_url = primary_url
        self._connection = Connection(os.environ.get("LAB_ADMIN_TOKEN"))
        self.is_replica = url != primary_url

    def describe(self) -> Description:
        if self.is_replica:
            return Description(["GET /data"])
        return Description(["POST /data", "GET /data", f"DELETE /data/{_AFTER}…"])

    def settings(self) -> Settings:
        """The configured delay, by the replica's URL as the primary has it."""
        if not self.is_replica:
            return Settings()
        service = client.get(f"{self.name}/version")["source"]
        found = client.get(f"{self._primary_url}/admin/replication-delays")
        url = next((url for url in found["models"] if urlsplit(url).hostname == service), None)
        if url is None:
            raise TargetError(f"{self.name} is not a replica of {self._primary_url}")
        model = from_json(found["models"][url])
        values = {_DELAY: json.dumps(model.as_json()), "mean": f"{model.mean_ms:g} ms"}
        return Settings(values={**values, "order": found["orders"][url]})

    def prepare(self) -> None:
        """Do nothing: a key is created when it is written."""

    def write(self, key: str, number: int) -> None:
        self._connection.request("POST", f"{self.name}/data", json.dumps({"key": _AFTER + key, "value": number}))

    def read(self, keys: Sequence[str]) -> Shown:
        last = max(int(key.lstrip("k")) for key in keys)  # k0001 is the first
        found = self._page(last)
        return Shown({key: found[key] for key in keys if key in found}, self.is_replica)

    def remove(self) -> None:
        for key in self._page(10_000):
            self._connection.request("DELETE", f"{self.name}/data/{_AFTER}{key}")

    def close(self) -> None:
        self._connection.close()

    def _page(self, limit: int) -> dict[str, Any]:
        """The probe's keys, which follow each other in key order."""
        cursor = base64.urlsafe_b64encode(_AFTER.encode()).decode()
        _, raw = self._connection.request("GET", f"{self.name}/data?cursor={cursor}&limit={limit}")
        try:
            found = strict_json.loads(raw)["data"]
        except (ValueError, LookupError, TypeError):
            raise NotNow(f"{self.name} did not answer with data") from None
        return {key.removeprefix(_AFTER): number for key, number in found.items() if key.startswith(_AFTER)}
