"""Log access for one replica, through the Redis consumer group named after it."""

from collections.abc import Callable, Sequence
from typing import Any

from broker.connection import Client, translated
from broker.entry import Entry, Raw, is_own
from broker.errors import LogMissing, LogRefused
from broker.position import START, Position
from broker.report import Report, channel


class Group:
    """A replica's place in the log; entries delivered but not acknowledged are *pending*. Thread-safe."""

    def __init__(self, client: Client, namespace: str, replica: str, place: Callable[..., object]) -> None:
        self._client: Any = client
        self._place = place
        self._stream, self._channel = f"{namespace}:log", channel(namespace)
        self.replica = self._replica = replica

    def join(self, position: Position) -> bool:
        """Create the group, positioned after ``position``; return ``False`` if it exists already."""
        try:
            with translated():
                self._place(keys=[self._stream], args=["CREATE", self._replica, str(position)])
        except LogRefused as error:
            if "BUSYGROUP" in str(error):
                return False
            if "requires the key to exist" in str(error):
                raise LogMissing("the log server holds no log yet") from error
            raise
        return True

    def leave(self) -> None:
        with translated():
            self._client.xgroup_destroy(self._stream, self._replica)

    def rewind(self, position: Position) -> None:
        with translated():
            self._place(keys=[self._stream], args=["SETID", self._replica, str(position)])

    def read(self, count: int, block_ms: int) -> list[Entry]:
        return [Entry.of_stream(name, fields) for name, fields in self._read(">", count, block_ms)]

    def pending(self, after: Position, count: int) -> list[tuple[Position, Entry | None]]:
        """Return the pending entries after ``after``; ``None`` for an entry that has been trimmed since."""
        found = self._read(str(after), count)
        return [(Position.of_entry(name), Entry.of_stream(name, own) if own else None) for name, own in found]

    def _read(self, after: str, count: int, block_ms: int | None = None) -> Raw:
        """Read from the group; acknowledge and drop foreign entries."""
        with translated():
            reply = self._client.xreadgroup(self._replica, self._replica, {self._stream: after}, count, block_ms)
            found: Raw = reply[0][1] if reply else []
            own = [(name, fields) for name, fields in found if not fields or is_own(fields)]
            if len(own) < len(found):
                self._client.xack(self._stream, self._replica, *({name for name, _ in found} - dict(own).keys()))
        return own

    def last_delivered(self) -> Position:
        with translated():
            groups = self._client.xinfo_groups(self._stream)
        delivered = (group["last-delivered-id"] for group in groups if group["name"] == self._replica)
        return next(map(Position.of_entry, delivered), START)

    def acknowledge(self, positions: Sequence[Position], report: Report | None = None) -> None:
        """Acknowledge entries whose effect is durable, and publish the report."""
        with translated():
            pipe = self._client.pipeline(transaction=True)
            if positions:
                pipe.xack(self._stream, self._replica, *map(str, positions))
            if report is not None:
                pipe.publish(self._channel, report.as_text())
            pipe.execute()
