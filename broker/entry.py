"""One change in the log, in a store, and in the store's digest: equal content ⇔ equal digest.

Each key contributes the SHA-1 of its write id, key and value; the digest is the sum of the contributions modulo 2^160.
A sum does not depend on order and can be updated per write, as the primary's script does (AdHash; Bellare and
Micciancio, "A New Paradigm for Collision-Free Hashing", 1997). It detects accidents, not attacks: it does not protect
against values chosen to collide.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Self, get_args

from broker.position import Position

Operation = Literal["set", "delete", "epoch"]
Raw = list[tuple[str, dict[str, str]]]  # stream IDs and fields, as redis-py returns them
EMPTY = f"{0:040x}"  # the digest of no content
_MODULUS = 2**160
_OPERATIONS = get_args(Operation)
_FIELDS = {"op", "key", "value", "write_id", "at", "traceparent"}
_SAMPLED = "13579bdf"  # the last digits of flags whose lowest bit is set


class Entry(NamedTuple):
    """One entry of the log. ``value`` is compact JSON text, empty for ``delete``; ``traceparent`` a W3C trace context
    or empty. An ``epoch`` with an empty ``value`` starts with an empty store; otherwise it keeps the content and
    continues from the position in ``value``. ``at_us`` is the publish time, since 1970 by the log's clock.
    """

    position: Position
    op: Operation
    key: str
    value: str
    write_id: str
    at_us: int
    traceparent: str = ""

    @classmethod
    def of_stream(cls, name: str, fields: dict[str, str]) -> Self:
        """Return the entry with this stream ID and these fields, which must satisfy ``is_own``."""
        op: Any = fields["op"]
        texts = fields["key"], fields["value"], fields["write_id"]
        return cls(Position.of_entry(name), op, *texts, int(fields["at"]), fields["traceparent"])

    @property
    def goes_on_from(self) -> Position | None:
        """The position that an epoch with kept content continues from; ``None`` for every other entry."""
        return Position.parse(json.loads(self.value)) if self.op == "epoch" and self.value else None

    @property
    def trace_id(self) -> str:
        """The recorded trace of the write, or an empty string."""
        return trace_id(self.traceparent)

    @property
    def size_bytes(self) -> int:
        return len(self.key) + len(self.value) + 200


def trace_id(traceparent: str) -> str:
    return traceparent[3:35] if traceparent[-1:] in _SAMPLED else ""  # 00-<trace id>-<span id>-<flags>


class Record(NamedTuple):
    key: str
    value: str
    version: int
    write_id: str
    at_us: int


def is_own(fields: dict[str, str]) -> bool:
    """Return whether the lab added this stream entry; other programs can add entries too."""
    return fields.keys() >= _FIELDS and fields["op"] in _OPERATIONS and fields["at"].isdecimal()


def own_entries(found: Raw) -> list[Entry]:
    return [Entry.of_stream(name, fields) for name, fields in found if is_own(fields)]


def contribution(write_id: str, key: str, value: str) -> bytes:
    """Return one key's contribution to the digest: 20 bytes."""
    raw_key = key.encode()
    text = b"%b:%d:%b%b" % (write_id.encode(), len(raw_key), raw_key, value.encode())
    return hashlib.sha1(text, usedforsecurity=False).digest()


def digest(items: Iterable[tuple[str, str, str]]) -> tuple[int, str]:
    """Return the number of ``(write id, key, value)`` items, and their digest as 40 hexadecimal digits."""
    count = total = 0
    for count, item in enumerate(items, 1):  # noqa: B007 - the last count is the total
        total += int.from_bytes(contribution(*item), "big")
    return count, f"{total % _MODULUS:040x}"
