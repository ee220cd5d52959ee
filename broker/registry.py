"""Registered replicas and their settings: ``lab14:replicas`` and ``lab14:settings``."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from broker.connection import Client, translated
from broker.delay import DelayModel, Order, from_json, tidy
from broker.errors import IdTaken
from broker.position import Position

LIVE_SECONDS = 5.0  # since the last heartbeat


class Member(NamedTuple):
    """A registered replica, as its last heartbeat described it.

    ``name_url`` has the replica's id for a host, as users name it; ``url`` is its address. ``diverged``: its content
    differs from the primary's at the same position. ``faults``: names of the active ones. ``resyncing``: why a snapshot
    is replacing its content, or empty. ``proof``: shows that its node has the lab's admin token, or empty.
    ``seen_at_us`` and ``applied_at_us`` are microseconds since 1970 by the log's clock; the latter is 0 before anything
    was applied.
    """

    replica: str
    name_url: str
    url: str
    position: Position
    seen_at_us: int
    applied_at_us: int
    diverged: bool = False
    faults: tuple[str, ...] = ()
    resyncing: str = ""
    proof: str = ""

    def is_live(self, now_us: int) -> bool:
        """Return whether the last heartbeat is recent."""
        return now_us - self.seen_at_us <= LIVE_SECONDS * 1_000_000


class Settings(NamedTuple):
    """The live settings of one replica: its schedule, and the time from applying an entry to acknowledging it."""

    delay: DelayModel
    ack_delay_ms: float
    order: Order = "log"
    seed: int = 0

    def as_text(self) -> str:
        """Return JSON, readable in redis-cli."""
        found = {"delay": self.delay.as_json(), "ack_delay_ms": tidy(self.ack_delay_ms)}
        return json.dumps({**found, "order": self.order, "seed": self.seed})

    @classmethod
    def from_text(cls, text: str) -> Settings:
        """Read what ``as_text`` wrote. Raises ``ValueError`` for anything else."""
        found = json.loads(text)
        order: Order = "arrival" if found.get("order") == "arrival" else "log"
        return cls(from_json(found.get("delay")), float(found.get("ack_delay_ms", 0)), order, int(found.get("seed", 0)))


class Registry:
    """The registered replicas and their settings. Methods raise ``broker.errors.LogError``. Thread-safe."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client
        self._members = f"{namespace}:replicas"
        self._settings = f"{namespace}:settings"

    def heartbeat(self, member: Member, defaults: Settings) -> tuple[Settings, bool]:
        """Register the replica, or renew it; return its current settings, and whether it is new."""
        fields = member._asdict() | {"position": str(member.position)}
        with translated():
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(self._members, member.replica, json.dumps(fields))
            pipe.hsetnx(self._settings, member.replica, defaults.as_text())
            pipe.hget(self._settings, member.replica)
            added, _, text = pipe.execute()
        return Settings.from_text(text), bool(added)

    def require_free(self, own: Member) -> None:
        """Raise ``IdTaken`` while a replica of this id is live at another URL."""
        with translated():
            text = self._client.hget(self._members, own.replica)
        other = None if text is None else _member(text)
        if other is not None and other.url != own.url and other.is_live(own.seen_at_us):
            raise IdTaken(f"{own.replica} is taken: a replica of this id is live at {other.url}")

    def members(self) -> list[Member]:
        """Return every registered replica, by name."""
        with translated():
            found = self._client.hgetall(self._members)
        return sorted(_member(text) for text in found.values())

    def forget(self, replica: str) -> bool:
        """Remove a replica and its settings; return ``False`` if it is not registered."""
        with translated():
            pipe = self._client.pipeline(transaction=True)
            pipe.hdel(self._members, replica)
            pipe.hdel(self._settings, replica)
            removed, _ = pipe.execute()
        return bool(removed)

    def settings(self) -> dict[str, Settings]:
        """Return the settings of every registered replica, by name."""
        with translated():
            found = self._client.hgetall(self._settings)
        return {replica: Settings.from_text(text) for replica, text in sorted(found.items())}

    def set_settings(self, changes: dict[str, Settings]) -> None:
        """Change settings, all or none; an event tells the replica."""
        with translated():
            self._client.hset(self._settings, mapping={name: new.as_text() for name, new in changes.items()})


def _member(text: str) -> Member:
    found = json.loads(text)
    faults = tuple(found.get("faults", ()))
    return Member(**(found | {"position": Position.parse(found["position"]), "faults": faults}))
