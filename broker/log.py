"""The replication log: appending to it, and keeping it within bounds.

The keys, in the order in which the scripts take them; ``lab14`` is the namespace:

    lab14:log          stream  one entry per change, its ID the position; fields op, key, value, write_id, at,
                               traceparent
    lab14:data         hash    the primary's store: key -> JSON {version, write_id, at, digest, value}, the value last,
                               as it was written
    lab14:head         hash    epoch, version, write_id, at of the last change; digest of the primary's store;
                               lab, the log's id, kept from its first entry through every epoch;
                               offset of the log's time, in microseconds; doubt, set after the damaged end of the
                               log's file was cut off, until an epoch starts; replication_id, of the server on which
                               the log was opened last
    lab14:keys         zset    the keys of lab14:data, all with score 0, for reading pages in order
    lab14:writes       hash    write id -> "position at SHA-1", so that a retry is the same write
    lab14:write_order  list    the write ids of lab14:writes, oldest first, to keep the hash bounded

One script each: append.lua appends changes, epoch.lua starts an epoch, page.lua reads a page of the store, before.lua
finds a position by its age, check.lua tests whether appends are possible, verified.lua recognizes the server on which
the log was opened, steady.lua keeps the time from going back, trim.lua drops entries, place.lua places a group.
``broker.group`` reads as a replica, ``broker.history`` observes, ``broker.primary_store`` reads the store.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

from redis import exceptions

from broker import errors
from broker.connection import Client, register, translated
from broker.entry import Operation, contribution
from broker.group import Group
from broker.history import History, Memory
from broker.position import START, Position
from broker.primary_store import PrimaryStore

REMEMBERED_WRITES = 100_000  # write ids for which a retry is recognized
CHANGES_MAX = 1000  # changes in one call
# The files of each script: those whose functions it uses, and its own.
_SCRIPTS = ("server append", "check", "groups server epoch", "groups place", "steady", "groups trim", "server verified")
_APPEND_ATTEMPTS = 3
_REPAIRS_MAX = 3
_COPIES_MS = 500  # the wait for copies in one attempt
_STEP_US = 100_000  # a smaller difference between two clocks does not count as a step
_SHRINK_STEPS = 32  # each step drops this fraction of the entries, to drop few more than necessary

Repairs = Mapping[type[errors.NotApplied], Callable[[], object]]


class Change(NamedTuple):
    """One change to append: compact JSON text for a value, and a write id without quotes and backslashes."""

    op: Operation
    key: str
    value: str
    write_id: str
    traceparent: str = ""


class Appended(NamedTuple):
    """A change's position in the log, and its time. ``repeated``: an earlier attempt had appended it."""

    position: Position
    at_us: int
    repeated: bool


class ReplicationLog(PrimaryStore):
    """One history of changes, with one consumer group per replica. Methods raise ``LogError``. Thread-safe."""

    def __init__(self, client: Client, namespace: str = "lab14", repairs: Repairs | None = None) -> None:
        """``repairs``: what to do before an append is retried once; for ``LogUnverified`` also before the first one."""
        super().__init__(client, namespace)
        self._repairs = repairs or {}
        self._namespace = namespace
        self.history = History(client, namespace)
        files = map(str.split, _SCRIPTS)
        self._scripts = {found[-1]: register(client, *(f"{one}.lua" for one in found)) for found in files}
        self._is_checked = False
        self._epoch = 0  # the newest that an append was in

    def repaired_by(self, repairs: Repairs) -> "ReplicationLog":
        return ReplicationLog(self._client, self._namespace, repairs)

    def _run(self, script: str, *args: str | int) -> Any:
        return self._scripts[script](keys=self._written, args=args)

    def group(self, replica: str) -> Group:
        return Group(self._client, self._namespace, replica, self._scripts["place"])

    # -- appending ----------------------------------------------------------------------------------------------------

    def append(
        self, op: Operation, key: str, value: str, write_id: str, traceparent: str = "", *, copies: int = 0
    ) -> Appended | None:
        """Append one change, or find it if ``write_id`` was appended before; ``None`` if the key to delete is missing.
        An attempt without a reply is repeated, up to three in all; ``OutcomeUnknown`` means no attempt got a reply.

        ``copies``: how many replicas of the log server have to confirm it, or ``TooFewCopies`` is raised.
        """
        (outcome,) = self.append_many([Change(op, key, value, write_id, traceparent)], copies)
        if isinstance(outcome, errors.WriteIdReused):
            raise outcome
        return outcome

    def append_many(self, changes: Sequence[Change], copies: int = 0) -> list[Appended | errors.WriteIdReused | None]:
        """Append up to ``CHANGES_MAX`` changes, all or none; return the result or error of ``append`` for each."""
        sha, keys = self._scripts["append"].sha, self._written
        call: list[str | int] = ["EVALSHA", sha, len(keys), *keys, REMEMBERED_WRITES, copies, self._epoch]
        for change in changes:
            call += [*change, contribution(change.write_id, change.key, change.value).hex()]
        if not self._is_checked:
            try:
                self.check("commands")
                if verify := self._repairs.get(errors.LogUnverified):
                    verify()
            except errors.OutcomeUnknown as error:
                raise errors.LogUnreachable(str(error)) from error
            self._is_checked = True
        replies = self._answered(lambda: self._repaired(lambda: self._exchange(call, copies)))
        self._epoch = max([self._epoch, *(int(reply[1]) for reply in replies if reply[0] == "applied")])
        return [_appended(change, reply) for change, reply in zip(changes, replies, strict=True)]

    def _exchange(self, call: list[str | int], copies: int) -> Any:
        """Append, in the same round trip wait for copies, and return the script's reply."""
        try:
            if copies == 0:
                return self._client.execute_command(*call)
            pipe = self._client.pipeline(transaction=False)
            pipe.execute_command(*call)
            pipe.execute_command("WAIT", copies, _COPIES_MS)
            reply, confirmed = pipe.execute(raise_on_error=False)
            if isinstance(reply, Exception):
                raise reply
        except exceptions.NoScriptError:
            self._client.script_load(self._scripts["append"].script)
            return self._exchange(call, copies)
        positions = [Position(int(row[1]), int(row[2])) for row in reply if row[1:]]
        if positions and not (isinstance(confirmed, int) and confirmed >= copies):
            why = f"only {confirmed} of {copies} copies confirmed it within {_COPIES_MS} ms"
            raise errors.TooFewCopies(f"the log server has the change at {max(positions)}, but {why}", max(positions))
        return reply

    def reset(self, write_id: str, seen: Position = START) -> Position:
        """Start an empty epoch after that of ``seen``; return its first position. Idempotent by ``write_id``."""
        return self._start_epoch("reset", write_id, Position(seen.epoch, 0))

    def _start_epoch(self, mode: str, write_id: str, seen: Position, doubt: str = "") -> Position:
        self.check("commands")  # a script that fails halfway would leave half an epoch
        run = partial(self._run, "epoch", mode, write_id, REMEMBERED_WRITES, *seen, doubt)
        found = self._answered(lambda: self._repaired(run))
        return Position(int(found[1]), int(found[2]))

    def _repaired(self, send: Callable[[], Any]) -> Any:
        """Send again after a refusal that can be repaired, or by a server that has been replaced."""
        for _ in range(_REPAIRS_MAX):
            try:
                with translated():
                    return send()
            except errors.LogMoved:
                continue  # a connection finds the server before its next command
            except (errors.LogUnverified, errors.LogFull) as error:
                if (repair := self._repairs.get(type(error))) is None:
                    raise
            repair()
        return send()

    def _answered(self, send: Callable[[], Any]) -> list[Any]:
        """Repeat an idempotent script while its outcome is unknown; a refusal does not settle an earlier doubt."""
        doubt: errors.OutcomeUnknown | None = None
        for _ in range(_APPEND_ATTEMPTS):
            try:
                with translated():
                    return cast("list[Any]", send())
            except errors.OutcomeUnknown as error:
                doubt = error
            except errors.NotApplied as error:
                if doubt is None:
                    raise
                raise doubt from error
        raise cast("errors.OutcomeUnknown", doubt)

    # -- upkeep -------------------------------------------------------------------------------------------------------

    def open(self, write_id: str, seen: Position = START, *, in_doubt: bool = False, moves: bool = False) -> Position:
        """Allow appends once the log has everything that any node has seen of it; return its position.

        ``seen`` is the newest position known to any node. If the log ends before that, or it is ``in_doubt`` whether a
        node has seen more, a new epoch continues from the end of the log, with its content: so no position ever
        identifies two changes. One starts also on a server that has replaced a master, or can have (``moves``): it can
        lack acknowledged writes that no node has seen. If there is no log, an empty epoch starts. A server that was
        restarted, or became master, refuses appends (``LogUnverified``) until this is called.
        """
        return self._start_epoch("open", write_id, seen, "doubt" if in_doubt else "moves" if moves else "")

    def is_verified(self) -> bool:
        """Return whether the log was opened since its server was started or became master, so nothing is lost."""
        with translated():
            return bool(self._run("verified"))

    def check(self, purpose: Literal["append", "commands"] = "append") -> None:
        """Raise ``LogRefused`` if a check finds that appends are impossible. Changes nothing."""
        with translated():
            reason = self._repaired(lambda: self._run("check", purpose))
        if reason:
            raise errors.LogRefused(f"the log server cannot accept appends: {reason}")

    def steady(self, known_us: int | None) -> int:
        """Keep the log's time from falling behind ``known_us``, the caller's estimate; return how far it moved."""
        with translated():
            before, after = self._run("steady", known_us or 0, _STEP_US)
        return int(after) - int(before)

    def trim(self, through: Position) -> int:
        """Drop the entries up to and including ``through``; return how many were dropped."""
        with translated():
            return int(self._run("trim", "MINID", f"{through.epoch}-{through.version + 1}"))

    def shrink(self, max_bytes: Callable[[Memory], int]) -> Memory | None:
        """Drop the oldest entries until ``max_bytes`` allows the rest; return the memory, ``None`` if unreported."""
        while (found := self.history.memory()) is not None and found.log_bytes > max_bytes(found):
            length = self.history.length()
            if length == 0:
                break
            with translated():
                self._run("trim", "MAXLEN", length - math.ceil(length / _SHRINK_STEPS))
        return found


def _appended(change: Change, reply: list[Any]) -> Appended | errors.WriteIdReused | None:
    outcome, *rest = reply
    if outcome == "missing":
        return None
    if outcome == "reused":
        return errors.WriteIdReused(f"the write id {change.write_id} belongs to another change")
    epoch, version, at_us = map(int, rest)
    return Appended(Position(epoch, version), at_us, outcome == "repeated")
