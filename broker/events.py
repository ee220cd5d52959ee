"""Events of the lab (changed settings, resets, joining replicas): a capped stream that any client may follow."""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.connection import Client, translated

_KEPT = 1000  # events, about


class Event(NamedTuple):
    """``id`` orders events; ``fields`` are ``kind`` and what belongs to it, all text."""

    id: str
    fields: dict[str, str]


class Events:
    """The stream ``lab14:events``. Methods raise ``broker.errors.LogError``."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client
        self.key = f"{namespace}:events"

    def publish(self, kind: str, **fields: str) -> None:
        with translated():
            self._client.xadd(self.key, {"kind": kind, **fields}, maxlen=_KEPT, approximate=True)

    def last_id(self) -> str:
        """Return the ID of the newest event, to wait for what comes after it."""
        with translated():
            newest = self._client.xrevrange(self.key, count=1)
        return newest[0][0] if newest else "0-0"

    def after(self, last_id: str, block_ms: int, count: int = 100) -> list[Event]:
        """Return the events after ``last_id``, waiting for the first up to ``block_ms``."""
        with translated():
            reply = self._client.xread({self.key: last_id}, count=count, block=block_ms)
        return [Event(name, fields) for name, fields in (reply[0][1] if reply else [])]
