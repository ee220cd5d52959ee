"""Registered replicas, their settings, and events: ``lab14:replicas``, ``lab14:settings`` and ``lab14:events``."""

import json
from typing import Any, NamedTuple, Self

from broker.connection import Client, translated
from broker.delay.models import DelayModel, Fixed, Order, from_json
from broker.errors import IdTaken
from broker.position import Position

LIVE_SECONDS = 5.0  # since the last heartbeat
_EVENTS_KEPT = 1000  # about
_MODELS = ("delay", "ack", "read")


class Member(NamedTuple):
    """A replica as of its last heartbeat; times in microseconds since 1970 by the log's clock, 0 for never.

    ``name_url`` has the replica's id as its host, for users; ``url`` is its address. ``diverged``: its content
    differs from the primary's at the same position. ``faults``: the active ones. ``resyncing``: why a snapshot is
    replacing its content, or empty. ``proof``: proves that its node has the lab's admin token, or empty.
    ``acknowledged``, and the number of applied entries that are not: ``None`` until known after a start.
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
    acknowledged: Position | None = None
    unacknowledged: int | None = None

    def is_live(self, now_us: int) -> bool:
        return now_us - self.seen_at_us <= LIVE_SECONDS * 1_000_000


class Settings(NamedTuple):
    """The live settings of one replica: the delay from commit to apply (``delay``), from apply to acknowledgement
    (``ack``), and of a read before it sees the store (``read``).
    """

    delay: DelayModel
    ack: DelayModel = Fixed(0)
    order: Order = "log"
    seed: int = 0
    read: DelayModel = Fixed(0)

    def as_text(self) -> str:
        models = {name: getattr(self, name).as_json() for name in _MODELS}
        return json.dumps(self._asdict() | models)

    @classmethod
    def from_text(cls, text: str) -> Self:
        found = json.loads(text)
        former = {"kind": "fixed", "ms": found.get("ack_delay_ms", 0)}  # stored by earlier releases
        models = {"ack": former, "read": Fixed(0).as_json()} | found
        order: Order = "arrival" if found.get("order") == "arrival" else "log"
        delay, ack, read = (from_json(models.get(name)) for name in _MODELS)
        return cls(delay, ack, order, int(found.get("seed", 0)), read)


class Registry:
    """The registered replicas and their settings. Methods raise ``broker.errors.LogError``. Thread-safe."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client
        self._members = f"{namespace}:replicas"
        self._settings = f"{namespace}:settings"

    def heartbeat(self, member: Member, defaults: Settings) -> tuple[Settings, bool]:
        acknowledged = member.acknowledged and str(member.acknowledged)
        fields = member._asdict() | {"position": str(member.position), "acknowledged": acknowledged}
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
        with translated():
            found = self._client.hgetall(self._members)
        return sorted(_member(text) for text in found.values())

    def forget(self, replica: str) -> bool:
        with translated():
            pipe = self._client.pipeline(transaction=True)
            pipe.hdel(self._members, replica)
            pipe.hdel(self._settings, replica)
            removed, _ = pipe.execute()
        return bool(removed)

    def settings(self) -> dict[str, Settings]:
        with translated():
            found = self._client.hgetall(self._settings)
        return {replica: Settings.from_text(text) for replica, text in sorted(found.items())}

    def set_settings(self, changes: dict[str, Settings]) -> None:
        """Change settings, all or none; an event notifies the replica."""
        with translated():
            self._client.hset(self._settings, mapping={name: new.as_text() for name, new in changes.items()})


def _member(text: str) -> Member:
    found = json.loads(text)
    acknowledged = found.get("acknowledged")
    typed = {
        "position": Position.parse(found["position"]),
        "faults": tuple(found.get("faults", ())),
        "acknowledged": acknowledged and Position.parse(acknowledged),
    }
    return Member(**found | typed)


class Event(NamedTuple):
    """``id`` orders events; ``fields`` are ``kind`` and its details, all text."""

    id: str
    fields: dict[str, str]


class Events:
    """Changed settings, resets, joining replicas: a capped stream that any client can follow. Raises ``LogError``."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client
        self.key = f"{namespace}:events"

    def publish(self, kind: str, **fields: str) -> str:
        """Return the event's id."""
        with translated():
            return str(self._client.xadd(self.key, {"kind": kind, **fields}, maxlen=_EVENTS_KEPT, approximate=True))

    def has(self, event_id: str) -> bool:
        with translated():
            return bool(self._client.xrange(self.key, event_id, event_id))

    def last_id(self) -> str:
        with translated():
            newest = self._client.xrevrange(self.key, count=1)
        return newest[0][0] if newest else "0-0"

    def after(self, last_id: str, block_ms: int, count: int = 100) -> list[Event]:
        with translated():
            reply = self._client.xread({self.key: last_id}, count=count, block=block_ms)
        return [Event(name, fields) for name, fields in (reply[0][1] if reply else [])]
