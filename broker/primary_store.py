"""The primary's store, which the log server holds beside the log, for reading; ``broker.log`` describes its keys."""

import json
from typing import Any, NamedTuple

from broker import errors
from broker.connection import Client, register, translated
from broker.entry import EMPTY, Record, contribution
from broker.position import Position

KEYS = ("log", "data", "head", "keys", "writes", "write_order")


class Head(NamedTuple):
    position: Position
    write_id: str
    at_us: int
    keys: int
    digest: str


class Page(NamedTuple):
    head: Head
    records: list[Record]
    more: bool


class PrimaryStore:
    """Each read is a consistent cut. Methods raise ``LogError``. Thread-safe."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client  # redis-py's types cover the replies of all settings; ours are fixed
        self._written = [f"{namespace}:{name}" for name in KEYS]
        _, self._data, self._head, self._keys, *_ = self._written
        self._page = register(client, "page.lua")

    def head(self) -> Head:
        """Return the last change, and the digest of the primary's store, as one consistent cut."""
        with translated():
            return _head(*self._queued_head().execute())

    def get(self, key: str) -> tuple[Head, Record | None]:
        with translated():
            pipe = self._queued_head()
            pipe.hget(self._data, key)
            fields, keys, record = pipe.execute()
        return _head(fields, keys), None if record is None else _record(key, record)

    def page(self, after: str, limit: int, max_bytes: int) -> Page:
        """Return at most ``limit`` records with keys greater than ``after``, ending once they exceed ``max_bytes``."""
        with translated():
            epoch, version, write_id, at, more, *flat = self._page(keys=self._written, args=[after, limit, max_bytes])
        head = Head(Position(int(epoch), int(version)), write_id, int(at), 0, EMPTY)
        records = [_record(key, text) for key, text in zip(flat[::2], flat[1::2], strict=True)]
        return Page(head, records, more == "more")

    def scan(self, cursor: int, count: int) -> tuple[int, list[Record]]:
        """Return some records, unordered and not of one position, and the cursor to continue with, 0 at the end."""
        with translated():
            cursor, found = self._client.hscan(self._data, cursor=cursor, count=count)
        return cursor, [_record(key, text) for key, text in found.items()]

    def _queued_head(self) -> Any:
        """Return a transaction whose first two replies are the arguments of ``_head``."""
        pipe = self._client.pipeline(transaction=True)
        pipe.hmget(self._head, "epoch", "version", "write_id", "at", "digest")
        pipe.zcard(self._keys)
        return pipe


def _head(fields: list[str | None], keys: int) -> Head:
    epoch, version, write_id, at, digest = fields
    if epoch is None or version is None or at is None:
        raise errors.LogMissing("the log server holds no log yet")
    return Head(Position(int(epoch), int(version)), write_id or "", int(at), keys, digest or EMPTY)


def _record(key: str, text: str) -> Record:
    """Parse a record by the fixed layout that append.lua writes, so the value stays unchanged. Check it against the
    record's digest: the store's digest is updated per write, not computed from the stored data.
    """
    front, _, rest = text.partition(',"value":')
    try:
        fields = json.loads(front + "}")
        record = Record(key, rest[:-1], fields["version"], fields["write_id"], fields["at"])
        if contribution(record.write_id, key, record.value).hex() == fields["digest"]:
            return record
    except (ValueError, TypeError, KeyError):
        pass
    raise errors.RecordDamaged(f"the primary's record of {key[:100]!r} is damaged; write it again or delete it")
