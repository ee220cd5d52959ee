"""Setting delays: how a person names a replica, and what is put in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from typing_extensions import TypedDict

from broker.delay.models import Fixed, Order, tidy
from broker.events import Events
from broker.registry import Member, Registry, Settings
from nodes.http.api import Body
from nodes.http.problem import Problem
from nodes.http.settings import Milliseconds, SettingsBody
from nodes.primary.metrics import PrimaryMetrics


class DelayBody(SettingsBody):
    """A replica by ``replica`` or ``replica_url``, and what of its settings is to be another."""

    replica: str | None = None
    replica_url: str | None = None

    @model_validator(mode="after")
    def _names_one(self) -> DelayBody:
        if (self.replica is None) == (self.replica_url is None):
            raise ValueError("name the replica by either replica or replica_url")
        return self


class DelaysBody(Body):
    """Delays in milliseconds by replica, named by id or URL."""

    delays: Annotated[dict[str, Milliseconds], Field(min_length=1)]


class DelaysAnswer(TypedDict):
    """What is in force, by the replica's URL. ``delays``: in milliseconds, the mean of the model."""

    delays: dict[str, float]
    models: dict[str, dict[str, Any]]
    ack_delays: dict[str, float]
    orders: dict[str, Order]
    seeds: dict[str, int]


class DelayAnswer(TypedDict):
    """The replica's new delay, and the delays of all."""

    status: str
    replica_url: str
    delay_ms: float
    all_delays: dict[str, float]


class AllDelaysAnswer(TypedDict):
    """The delays of all replicas."""

    status: str
    all_delays: dict[str, float]


class Delays:
    """The live settings of the replicas. Methods raise ``broker.errors.LogError``."""

    def __init__(
        self, registered: Registry, events: Events, metrics: PrimaryMetrics, now_us: Callable[[], int]
    ) -> None:
        self._registered = registered
        self._events = events
        self._metrics = metrics
        self._now_us = now_us

    def show(self) -> DelaysAnswer:
        """Everything in force."""
        urls = {member.replica: member.name_url for member in self._registered.members()}
        settings = {urls[replica]: found for replica, found in self._registered.settings().items() if replica in urls}
        return {
            "delays": {url: _mean_ms(found) for url, found in settings.items()},
            "models": {url: found.delay.as_json() for url, found in settings.items()},
            "ack_delays": {url: tidy(found.ack_delay_ms) for url, found in settings.items()},
            "orders": {url: found.order for url, found in settings.items()},
            "seeds": {url: found.seed for url, found in settings.items()},
        }

    def change(self, body: DelayBody) -> DelayAnswer:
        """Change one replica. Raises ``Problem`` 422 for an unknown replica."""
        member, old = self._find(body.replica or body.replica_url or "")
        new = body.applied_to(old)
        self._put({member.replica: new})
        delays = self.show()["delays"]
        return {
            "status": "updated",
            "replica_url": member.name_url,
            "delay_ms": _mean_ms(new),
            "all_delays": delays,
        }

    def change_several(self, body: DelaysBody) -> AllDelaysAnswer:
        """Change the delays of several replicas, all or none."""
        found = {self._find(name): ms for name, ms in body.delays.items()}
        self._put({member.replica: old._replace(delay=Fixed(ms)) for (member, old), ms in found.items()})
        return {"status": "updated", "all_delays": self.show()["delays"]}

    def _put(self, changes: dict[str, Settings]) -> None:
        self._registered.set_settings(changes)
        for replica, settings in changes.items():
            self._events.publish("settings", replica=replica, settings=settings.as_text())
            self._metrics.changed("delay", self._now_us(), replica)

    def _find(self, name: str) -> tuple[Member, Settings]:
        settings = self._registered.settings()
        members = [member for member in self._registered.members() if member.replica in settings]
        for member in members:
            if name.rstrip("/") in {member.replica, member.url, member.name_url} or _host(name) == member.replica:
                return member, settings[member.replica]
        known = [member.replica for member in members]
        detail = f"There is no replica {name[:100]!r}; there are {', '.join(known) or 'none yet'}."
        raise Problem(422, "unknown-replica", "Unknown replica", detail, known_replicas=known)


def _mean_ms(settings: Settings) -> float:
    return tidy(round(settings.delay.mean_ms, 3))


def _host(name: str) -> str | None:
    try:
        return urlsplit(name).hostname
    except ValueError:
        return None
