"""Changes of the replicas' settings, with the replica named by id or by URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from typing_extensions import TypedDict

from broker.delay.models import DelayModel, Fixed, Order, tidy
from broker.registry import Member, Settings
from nodes.http.api import Body
from nodes.http.writing import Milliseconds, SettingsBody
from nodes.primary.parts import Parts


class DelayBody(SettingsBody):
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
    """The current settings, by the replica's URL. A delay is in milliseconds, the mean of its model."""

    delays: dict[str, float]
    models: dict[str, dict[str, Any]]
    ack_delays: dict[str, float]
    ack_models: dict[str, dict[str, Any]]
    read_delays: dict[str, float]
    read_models: dict[str, dict[str, Any]]
    orders: dict[str, Order]
    seeds: dict[str, int]


class AllDelaysAnswer(TypedDict):
    status: str
    all_delays: dict[str, float]


class DelayAnswer(AllDelaysAnswer):
    replica_url: str
    delay_ms: float


class UnknownReplica(Exception):
    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"There is no replica {name[:100]!r}; registered: {', '.join(known) or 'none'}")
        self.extra = {"known_replicas": known}


@dataclass
class Delays:
    """The live settings of the replicas. Methods raise ``broker.errors.LogError``."""

    _parts: Parts

    def show(self) -> DelaysAnswer:
        urls = {member.replica: member.name_url for member in self._parts.registered.members()}
        registered = self._parts.registered.settings().items()
        settings = {urls[replica]: found for replica, found in registered if replica in urls}
        return {
            "delays": {url: _mean_ms(found.delay) for url, found in settings.items()},
            "models": {url: found.delay.as_json() for url, found in settings.items()},
            "ack_delays": {url: _mean_ms(found.ack) for url, found in settings.items()},
            "ack_models": {url: found.ack.as_json() for url, found in settings.items()},
            "read_delays": {url: _mean_ms(found.read) for url, found in settings.items()},
            "read_models": {url: found.read.as_json() for url, found in settings.items()},
            "orders": {url: found.order for url, found in settings.items()},
            "seeds": {url: found.seed for url, found in settings.items()},
        }

    def change(self, body: DelayBody) -> DelayAnswer:
        member, old = self._find(body.replica or body.replica_url or "")
        new = body.applied_to(old)
        return {**self._put({member.replica: new}), "replica_url": member.name_url, "delay_ms": _mean_ms(new.delay)}

    def change_several(self, body: DelaysBody) -> AllDelaysAnswer:
        """Change the delays of several replicas, all or none. Raises ``UnknownReplica``."""
        found = {self._find(name): ms for name, ms in body.delays.items()}
        return self._put({member.replica: old._replace(delay=Fixed(ms)) for (member, old), ms in found.items()})

    def _put(self, changes: dict[str, Settings]) -> AllDelaysAnswer:
        self._parts.registered.set_settings(changes)
        for replica, settings in changes.items():
            self._parts.events.publish("settings", replica=replica, settings=settings.as_text())
            self._parts.metrics.changed("delay", self._parts.clock.now_us(), replica)
        return {"status": "updated", "all_delays": self.show()["delays"]}

    def _find(self, name: str) -> tuple[Member, Settings]:
        settings = self._parts.registered.settings()
        members = [member for member in self._parts.registered.members() if member.replica in settings]
        for member in members:
            if name.rstrip("/") in {member.replica, member.url, member.name_url} or _host(name) == member.replica:
                return member, settings[member.replica]
        raise UnknownReplica(name, [member.replica for member in members])


def _mean_ms(model: DelayModel) -> float:
    return tidy(round(model.mean_ms, 3))


def _host(name: str) -> str | None:
    try:
        return urlsplit(name).hostname
    except ValueError:
        return None
