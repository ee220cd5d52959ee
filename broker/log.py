"""The replication log: the only module that speaks Redis commands for it.

The keys, of which ``lab14`` is the namespace:

    lab14:log          stream  one entry per change, its ID the position; fields op, key, value, write_id, at,
                               traceparent
    lab14:data         hash    the primary's store: key -> JSON {version, write_id, at, digest, value}
    lab14:head         hash    epoch, version, write_id, at of the last change; digest of the primary's store;
                               lab, an id that the log keeps from its first entry on, through every epoch;
                               offset of the log's time, in microseconds
    lab14:keys         zset    the keys of lab14:data, for reading pages in order
    lab14:writes       hash    write id -> position, time and SHA-1 of the change, so that a retry is the same write
    lab14:write_order  list    the write ids of lab14:writes, oldest first, so that it stays bounded

A change is appended by one script (append.lua), an epoch begun by one (epoch.lua), a page of the primary's store read
by one (page.lua), a position found by its age by one (before.lua). One finds out whether appends can be taken
(check.lua), one keeps the log's time from going back (steady.lua). Each replica reads through a consumer group of its
own name: what it was given and has not acknowledged is *pending*.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, NamedTuple, cast, get_args

from redis import exceptions

from broker.connection import Client, translated
from broker.digest import EMPTY, contribution
from broker.entry import Entry, Operation, Record
from broker.errors import (
    LogFull,
    LogMissing,
    LogRefused,
    LogUnreachable,
    LogUnverified,
    NotApplied,
    OutcomeUnknown,
    PositionLost,
    RecordDamaged,
    WriteIdReused,
)
from broker.position import START, Position

REMEMBERED_WRITES = 100_000
CHANGES_MAX = 1000
_APPEND_ATTEMPTS = 3
_FOREIGN_MAX = 10**14  # the first part of an entry's ID after which an epoch can begin is less; check.lua has it too
_FIELDS = {"op", "key", "value", "write_id", "at", "traceparent"}
_OPERATIONS = get_args(Operation)
_Raw = list[tuple[str, dict[str, str]]]  # IDs and fields
_STEP_US = 100_000  # a smaller difference between two clocks is no step of one of them
_SHRINK_STEPS = 32  # the part of the entries that is dropped at once, so that not many more go than have to


class Head(NamedTuple):
    """The last change in the log, and the primary's store after it. ``at_us``: microseconds since 1970."""

    position: Position
    write_id: str
    at_us: int
    keys: int
    digest: str


class Change(NamedTuple):
    """One change to append: compact JSON text for a value, and a write id free of quotes and backslashes."""

    op: Operation
    key: str
    value: str
    write_id: str
    traceparent: str = ""


class Appended(NamedTuple):
    """Where a change is in the log, and since when. ``repeated``: it was there already, by an earlier attempt."""

    position: Position
    at_us: int
    repeated: bool


class Page(NamedTuple):
    """Some records in key order, at one position; ``more`` when there are keys after the last one."""

    head: Head
    records: list[Record]
    more: bool


class Group(NamedTuple):
    """A replica's place in the log: what it was given last, and what of it is not acknowledged."""

    replica: str
    last_delivered: Position
    pending: int
    oldest_pending: Position | None
    newest_pending: Position | None


class Memory(NamedTuple):
    """Bytes that the log's entries take in the log server, that all of it takes, and that it may; 0 for any number."""

    log_bytes: int
    used_bytes: int
    max_bytes: int


class ReplicationLog:
    """One history of changes, with one consumer group per replica.

    Methods raise ``broker.errors.LogError``; see there what each means for a write. Thread-safe.
    """

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client  # redis-py's types name every reply of every setting at once; ours are pinned
        self.verify: Callable[[], None] | None = None  # called where an append finds the server unverified; see open()
        self.make_room: Callable[[], None] | None = None  # called where an append finds the server without memory
        self._log = f"{namespace}:log"
        self._data = f"{namespace}:data"
        self._head = f"{namespace}:head"
        self._keys = f"{namespace}:keys"
        self._written = [
            self._log,
            self._data,
            self._head,
            self._keys,
            f"{namespace}:writes",
            f"{namespace}:write_order",
        ]
        self._append_text = _script("append.lua")
        self._append_sha = hashlib.sha1(self._append_text.encode(), usedforsecurity=False).hexdigest()
        self._epoch_script = client.register_script(_script("epoch.lua"))
        self._page_script = client.register_script(_script("page.lua"))
        self._before_script = client.register_script(_script("before.lua"))
        self._check_script = client.register_script(_script("check.lua"))
        self._steady_script = client.register_script(_script("steady.lua"))
        self._is_checked = False

    # -- writing ------------------------------------------------------------------------------------------------------

    def open(self, write_id: str, seen: Position = START, *, in_doubt: bool = False) -> Position:
        """Let appends begin, on a log that lacks nothing of what anybody has seen of it; return where it is.

        ``seen`` is the newest position that anybody knows of. Where the log ends before that, or it is ``in_doubt``
        whether somebody knows more, an epoch begins that goes on from where the log ends, with the content that is
        there: so no position ever names two changes. Where there is no log, an empty epoch begins.

        A server that is started again refuses appends (``LogUnverified``) until this has been called: its log may have
        lost its end, or be that of another server.
        """
        args: list[str | int] = [
            "open",
            write_id,
            REMEMBERED_WRITES,
            seen.epoch,
            seen.version,
            "doubt" if in_doubt else "",
        ]
        position = self._begin_epoch(args)
        with translated():
            # Cached scripts are the one thing that a server forgets when it ends. By EVAL, because Redis 6.2 writes
            # SCRIPT LOAD to its append-only file.
            self._client.eval(self._append_text, 0, "load")
        return position

    def check(self) -> None:
        """Raises ``LogRefused`` where appends cannot be taken, as far as that shows without one. It changes nothing."""
        self._check("append")

    def _check(self, purpose: str) -> None:
        with translated():
            reason = self._mended(lambda: self._check_script(keys=self._written, args=[purpose]))
        if reason:
            raise LogRefused(f"the log server cannot take appends: {reason}")

    def hazard(self) -> str | None:
        """Why the server may drop what it has acknowledged, and what to change; ``None`` where nothing shows it."""
        try:
            with translated():
                info = self._client.info()
        except LogRefused:  # by a server, or to a user, that does not answer this
            return None
        policy = str(info.get("maxmemory_policy", ""))
        if policy.startswith("allkeys-"):
            what, change = f"maxmemory-policy is {policy}", "CONFIG SET maxmemory-policy noeviction"
        elif info.get("role") == "slave":
            what, change = "it is a replica of another server", "use that one"
        elif info.get("aof_enabled") == 0:
            what, change = "appendonly is no", "CONFIG SET appendonly yes"
        else:
            return None
        return f"the log server may drop what it has acknowledged, because {what}; {change}"

    def was_cut(self) -> bool:
        """Whether the end of the log's file was cut off, because it was damaged, and no epoch has begun since."""
        with translated():
            return bool(self._client.hexists(self._head, "doubt"))

    def is_verified(self) -> bool:
        """Whether there is a log, and its server has been running since ``open``, so that it has lost nothing."""
        with translated():
            return bool(self._client.script_exists(self._append_sha)[0] and self._client.hexists(self._head, "lab"))

    def position(self) -> Position | None:
        """Where the log is; ``None`` where there is none."""
        try:
            return self.head().position
        except LogMissing:
            return None

    def foreign(self) -> Position | None:
        """The newest ID in the log, where something else than the lab has added an entry after the last change.

        ``None`` too where no epoch can begin after it: ``check`` says what to do then.
        """
        try:
            with translated():
                pipe = self._client.pipeline(transaction=True)
                self._queue_head(pipe)
                pipe.xinfo_stream(self._log)
                fields, info = pipe.execute()
        except LogRefused:  # there is none
            return None
        last = Position.of_entry(info["last-generated-id"])
        return last if _head(fields, 0).position < last and last.epoch < _FOREIGN_MAX else None

    def lab(self) -> str:
        """The id that tells this log from every other: made with the log, and kept through resets and epochs."""
        with translated():
            found = self._client.hget(self._head, "lab")
        if found is None:
            raise LogMissing("the log server holds no log yet")
        return str(found)

    def reset(self, write_id: str, seen: Position = START) -> Position:
        """Begin an empty epoch after that of ``seen``; return its first position. Idempotent by ``write_id``."""
        return self._begin_epoch(["reset", write_id, REMEMBERED_WRITES, seen.epoch, 0, ""])

    def append(self, op: Operation, key: str, value: str, write_id: str, traceparent: str = "") -> Appended | None:
        """Append one change, or find it where ``write_id`` has put it before.

        ``value`` is compact JSON text, ``write_id`` free of quotes and backslashes. Returns ``None`` when the key to
        delete is missing, which changes nothing. An attempt without an answer is repeated under the same write id,
        up to three in all; ``OutcomeUnknown`` means that none was answered.
        """
        (outcome,) = self.append_many([Change(op, key, value, write_id, traceparent)])
        if isinstance(outcome, WriteIdReused):
            raise outcome
        return outcome

    def append_many(self, changes: Sequence[Change]) -> list[Appended | WriteIdReused | None]:
        """Append changes one after another, all or none of them, at most ``CHANGES_MAX``.

        For each what ``append`` would return, or raise where that is of this change alone.
        """
        call: list[str | int] = ["EVALSHA", self._append_sha, len(self._written), *self._written, REMEMBERED_WRITES]
        for change in changes:
            call += [*change, contribution(change.write_id, change.key, change.value).hex()]
        if not self._is_checked:
            try:
                self._check("commands")
            except OutcomeUnknown as error:
                raise LogUnreachable(str(error)) from error
            self._is_checked = True
        replies = self._answered(lambda: self._mended(lambda: self._client.execute_command(*call)))
        return [_appended(change, reply) for change, reply in zip(changes, replies, strict=True)]

    def _begin_epoch(self, args: list[str | int]) -> Position:
        self._check("commands")  # a script that is refused a command half way would leave half an epoch
        _, epoch, version = self._answered(lambda: self._epoch_script(keys=self._written, args=args))
        return Position(int(epoch), int(version))

    def _mended(self, send: Callable[[], Any]) -> Any:
        """Send, where need be after ``verify`` or ``make_room``."""
        try:
            with translated():
                return send()
        except (LogUnverified, LogFull) as error:
            mend = self.verify if isinstance(error, LogUnverified) else self.make_room
            if mend is None:
                raise
        mend()
        return send()

    def _answered(self, send: Callable[[], Any]) -> list[Any]:
        """Repeat an idempotent script while its outcome is unknown; a refusal does not settle an earlier doubt."""
        doubt: OutcomeUnknown | None = None
        for _ in range(_APPEND_ATTEMPTS):
            try:
                with translated():
                    return cast("list[Any]", send())
            except OutcomeUnknown as error:
                doubt = error
            except NotApplied as error:
                if doubt is None:
                    raise
                raise doubt from error
        raise cast("OutcomeUnknown", doubt)

    def trim(self, through: Position) -> int:
        """Drop the entries up to and including ``through``; return how many were dropped."""
        with translated():
            first = Position(through.epoch, through.version + 1)
            return int(self._client.xtrim(self._log, minid=str(first), approximate=False))

    def shrink(self, max_bytes: Callable[[Memory], int]) -> Memory | None:
        """Drop the oldest entries until those that are left take no more bytes than ``max_bytes`` allows.

        Returns what the memory is then; ``None``, and nothing is dropped, where the server does not say.
        """
        while (found := self.memory()) is not None and found.log_bytes > max_bytes(found) and (length := self.length()):
            with translated():
                self._client.xtrim(self._log, maxlen=length - math.ceil(length / _SHRINK_STEPS), approximate=False)
        return found

    # -- the primary's store ------------------------------------------------------------------------------------------

    def head(self) -> Head:
        """The last change, and the digest of the primary's store, as one consistent cut."""
        with translated():
            pipe = self._client.pipeline(transaction=True)
            self._queue_head(pipe)
            pipe.zcard(self._keys)
            fields, keys = pipe.execute()
        return _head(fields, keys)

    def get(self, key: str) -> tuple[Head, Record | None]:
        """A key's record, or ``None`` where it is missing, and the position at which that is so."""
        with translated():
            pipe = self._client.pipeline(transaction=True)
            self._queue_head(pipe)
            pipe.zcard(self._keys)
            pipe.hget(self._data, key)
            fields, keys, record = pipe.execute()
        return _head(fields, keys), None if record is None else _record(key, record)

    def page(self, after: str, limit: int, max_bytes: int) -> Page:
        """Records with keys greater than ``after``: at most ``limit``, and ending once they weigh ``max_bytes``."""
        with translated():
            epoch, version, write_id, at, more, *flat = self._page_script(
                keys=[self._data, self._head, self._keys], args=[after, limit, max_bytes]
            )
        head = Head(Position(int(epoch), int(version)), write_id, int(at), 0, EMPTY)
        records = [_record(key, text) for key, text in zip(flat[::2], flat[1::2], strict=True)]
        return Page(head, records, more == "more")

    def scan(self, cursor: int, count: int) -> tuple[int, list[Record]]:
        """Some records in no order and at no one position, and the cursor to go on with, 0 at the end."""
        with translated():
            cursor, found = self._client.hscan(self._data, cursor=cursor, count=count)
        return cursor, [_record(key, text) for key, text in found.items()]

    def _queue_head(self, pipe: Any) -> None:
        pipe.hmget(self._head, "epoch", "version", "write_id", "at", "digest")

    # -- a replica's reading ------------------------------------------------------------------------------------------

    def join(self, replica: str, position: Position) -> bool:
        """Make the replica's group, to be given what follows ``position``; ``False`` where it exists already."""
        try:
            with translated():
                self._client.xgroup_create(self._log, replica, id=str(position))
        except LogRefused as error:
            cause = str(error.__cause__)
            if "BUSYGROUP" in cause:
                return False
            if "requires the key to exist" in cause:
                raise LogMissing("the log server holds no log yet") from error
            raise
        return True

    def leave(self, replica: str) -> None:
        """Remove the replica's group and what is pending in it."""
        with translated():
            self._client.xgroup_destroy(self._log, replica)

    def rewind(self, replica: str, position: Position) -> None:
        """Have the replica be given again what follows ``position``."""
        with translated():
            self._client.xgroup_setid(self._log, replica, id=str(position))

    def pending(self, replica: str, after: Position, count: int) -> list[tuple[Position, Entry | None]]:
        """What the replica was given after ``after`` and has not acknowledged; ``None`` for an entry since trimmed."""
        with translated():
            reply = self._client.xreadgroup(replica, replica, {self._log: str(after)}, count=count)
        own = self._own(replica, _only(reply))
        return [(Position.of_entry(name), _entry(name, fields) if fields else None) for name, fields in own]

    def read(self, replica: str, count: int, block_ms: int) -> list[Entry]:
        """Give the replica the next entries, which are pending from then on; an empty list after ``block_ms``."""
        with translated():
            reply = self._client.xreadgroup(replica, replica, {self._log: ">"}, count=count, block=block_ms)
        return [_entry(name, fields) for name, fields in self._own(replica, _only(reply))]

    def _own(self, replica: str, found: _Raw) -> _Raw:
        """Without what something else than the lab has added, which is acknowledged and not handed on."""
        foreign = [name for name, fields in found if fields and not _is_own(fields)]
        if foreign:
            with translated():
                self._client.xack(self._log, replica, *foreign)
        return [(name, fields) for name, fields in found if name not in foreign]

    def last_delivered(self, replica: str) -> Position:
        """The newest position that the replica's group was given."""
        with translated():
            groups = self._client.xinfo_groups(self._log)
        return next((_delivered(info) for info in groups if info["name"] == replica), START)

    def acknowledge(self, replica: str, positions: Sequence[Position]) -> int:
        """Acknowledge entries whose effect is durable; return how many of them were pending."""
        with translated():
            return int(self._client.xack(self._log, replica, *map(str, positions)))

    # -- looking at it ------------------------------------------------------------------------------------------------

    def now_us(self) -> int:
        """The log's time: its server's clock in microseconds since 1970, but not before what the log has seen of it."""
        with translated():
            pipe = self._client.pipeline(transaction=True)
            pipe.time()
            pipe.hmget(self._head, "at", "offset")
            (seconds, microseconds), (at, offset) = pipe.execute()
        return max(int(seconds) * 1_000_000 + int(microseconds) + int(offset or 0), int(at or 0))

    def steady(self, known_us: int | None) -> int:
        """Keep the log's time going on where its server's clock is set back; return by how much that moved it.

        ``known_us``: the log's time as the caller has carried it forward from an earlier answer, by a clock of its own.
        """
        with translated():
            before, after = self._steady_script(keys=[self._head], args=[known_us or 0, _STEP_US])
        return int(after) - int(before)

    def length(self) -> int:
        """How many entries the log holds."""
        with translated():
            return int(self._client.xlen(self._log))

    def memory(self) -> Memory | None:
        """How much memory there is and is taken; ``None`` where the server does not say.

        The server looks at every node of the stream, of 100 entries or 4 kB each: for a million entries that takes it
        25 ms.
        """
        with translated():
            pipe = self._client.pipeline(transaction=False)
            pipe.memory_usage(self._log, samples=0)  # of all entries: a few of them may not stand for the rest
            pipe.info("memory")
            log_bytes, server = pipe.execute(raise_on_error=False)
        if isinstance(log_bytes, Exception) or isinstance(server, Exception):
            return None
        return Memory(int(log_bytes or 0), int(server["used_memory"]), int(server.get("maxmemory", 0)))

    def between(self, first: Position, last: Position, count: int) -> list[Entry]:
        """Entries from ``first`` to ``last``, both included, oldest first, at most ``count``.

        Raises ``PositionLost`` when ``first`` itself is not there, although the log has gone past it.
        """
        with translated():
            found = self._client.xrange(self._log, min=str(first), max=str(last), count=count)
        entries = _entries(found)
        if entries and entries[0].position != first:
            raise PositionLost(f"the log begins at {entries[0].position}, after {first}")
        return entries

    def before(self, age_us: int) -> tuple[Position, Position]:
        """The newest position of the present epoch committed at least ``age_us`` ago, and the head, as one cut.

        Where the log no longer goes back that far, the position before its oldest entry.
        """
        with translated():
            epoch, version, newest = self._before_script(keys=[self._log, self._head], args=[age_us])
        return Position(int(epoch), int(version)), Position(int(epoch), int(newest))

    def after(self, position: Position, count: int) -> list[Entry]:
        """The oldest entries after ``position`` that the log still holds, oldest first, at most ``count``."""
        with translated():
            found = self._client.xrange(self._log, min=f"({position}", max="+", count=count)
        return _entries(found)

    def follow(self, position: Position, count: int, block_ms: int) -> list[Entry]:
        """The entries after ``position``, waiting for the first of them up to ``block_ms``; nobody's group knows."""
        with translated():
            reply = self._client.xread({self._log: str(position)}, count=count, block=block_ms)
        found = _only(reply)
        entries = _entries(found)
        if found and not entries:  # which would be found again at once
            raise LogRefused(f"the log's entry {found[0][0]} is not of this lab")
        return entries

    def newest(self, count: int) -> list[Entry]:
        """The newest entries, oldest of them first."""
        with translated():
            found = self._client.xrevrange(self._log, count=count)
        return _entries(list(reversed(found)))

    def groups(self) -> list[Group]:
        """Every replica's place in the log, by name. Empty where there is no log."""
        try:
            with translated():
                infos = self._client.xinfo_groups(self._log)
                pipe = self._client.pipeline(transaction=False)
                for info in infos:
                    pipe.xpending(self._log, info["name"])
                summaries = pipe.execute()
        except LogRefused as error:
            if isinstance(error.__cause__, exceptions.ResponseError) and "no such key" in str(error.__cause__):
                return []
            raise
        return sorted(_group(info, summary) for info, summary in zip(infos, summaries, strict=True))


def _appended(change: Change, reply: list[Any]) -> Appended | WriteIdReused | None:
    """What append.lua has answered to a change."""
    outcome, *rest = reply
    if outcome == "missing":
        return None
    if outcome == "reused":
        return WriteIdReused(f"the write id {change.write_id} belongs to another change")
    epoch, version, at_us = map(int, rest)
    return Appended(Position(epoch, version), at_us, outcome == "repeated")


def _script(name: str) -> str:
    return resources.files("broker").joinpath(name).read_text(encoding="utf-8")


def _only(reply: Any) -> _Raw:
    """The entries of a reply about one stream: ``[[stream, entries]]``, or nothing."""
    return cast("_Raw", reply[0][1] if reply else [])


def _entries(found: _Raw) -> list[Entry]:
    """Those of them that are of this lab."""
    return [_entry(name, fields) for name, fields in found if _is_own(fields)]


def _is_own(fields: dict[str, str]) -> bool:
    return fields.keys() >= _FIELDS and fields["op"] in _OPERATIONS and fields["at"].isdecimal()


def _entry(name: str, fields: dict[str, str]) -> Entry:
    return Entry(
        Position.of_entry(name),
        cast("Operation", fields["op"]),
        fields["key"],
        fields["value"],
        fields["write_id"],
        int(fields["at"]),
        fields["traceparent"],
    )


def _head(fields: list[str | None], keys: int) -> Head:
    epoch, version, write_id, at, digest = fields
    if epoch is None or version is None or at is None:
        raise LogMissing("the log server holds no log yet")
    return Head(Position(int(epoch), int(version)), write_id or "", int(at), keys, digest or EMPTY)


def _record(key: str, text: str) -> Record:
    """Take a record apart by its fixed layout (append.lua writes it), so that the value stays as it was written.

    Raises ``RecordDamaged`` where it is not what was written: the digest of the store is no proof of it, because it is
    kept up to date and not computed from what is stored.
    """
    front, _, rest = text.partition(',"value":')
    try:
        fields = json.loads(front + "}")
        record = Record(key, rest[:-1], fields["version"], fields["write_id"], fields["at"])
        if contribution(record.write_id, key, record.value).hex() == fields["digest"]:
            return record
    except (ValueError, TypeError, KeyError):
        pass
    raise RecordDamaged(f"the primary's record of {key[:100]!r} is damaged; write it again or delete it")


def _group(info: dict[str, Any], summary: dict[str, Any]) -> Group:
    oldest, newest = summary["min"], summary["max"]
    return Group(
        replica=info["name"],
        last_delivered=_delivered(info),
        pending=summary["pending"],
        oldest_pending=Position.of_entry(oldest) if oldest else None,
        newest_pending=Position.of_entry(newest) if newest else None,
    )


def _delivered(info: dict[str, Any]) -> Position:
    return Position.of_entry(info["last-delivered-id"])
