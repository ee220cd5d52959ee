"""What happened to the lab: settings, resets, replicas joining. A capped stream that anybody may follow."""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.connection import Client, translated

_KEPT = 1000


class Event(NamedTuple):
    """One happening. ``id`` orders events; ``fields`` are ``kind`` and what belongs to it, all text."""

    id: str
    fields: dict[str, str]


class Events:
    """``lab14:events``: about the last thousand happenings. Methods raise ``broker.errors.LogError``."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client
        self.key = f"{namespace}:events"

    def publish(self, kind: str, **fields: str) -> None:
        """Append an event of this kind."""
        with translated():
            self._client.xadd(self.key, {"kind": kind, **fields}, maxlen=_KEPT, approximate=True)

    def last_id(self) -> str:
        """The ID of the newest event, to wait for what comes after it."""
        with translated():
            newest = self._client.xrevrange(self.key, count=1)
        return newest[0][0] if newest else "0-0"

    def after(self, last_id: str, block_ms: int, count: int = 100) -> list[Event]:
        """The events after ``last_id``, waiting for the first up to ``block_ms``."""
        with translated():
            reply = self._client.xread({self.key: last_id}, count=count, block=block_ms)
        return [Event(name, fields) for name, fields in (reply[0][1] if reply else [])]
