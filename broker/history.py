"""Inspection of the log: its entries, groups, time and memory. Reading here does not affect any group."""

from collections.abc import Callable
from typing import Any, NamedTuple

from redis import exceptions

from broker.connection import Client, register, translated
from broker.entry import Entry, Raw, own_entries
from broker.errors import LogMissing, LogRefused, PositionLost
from broker.position import Position

_FOREIGN_MAX = 10**14  # an epoch can start after an entry whose ID's first part is smaller; also in check.lua


class GroupState(NamedTuple):
    replica: str
    last_delivered: Position
    pending: int
    oldest_pending: Position | None
    newest_pending: Position | None


class Delivered(NamedTuple):
    """The last position delivered to each group, and the log's time at that moment."""

    at_us: int
    positions: dict[str, Position]


class Memory(NamedTuple):
    """Bytes used by the log's entries and by the whole log server, and the server's limit, 0 for none."""

    log_bytes: int
    used_bytes: int
    max_bytes: int


class History:
    """Read-only view of the log. Methods raise ``broker.errors.LogError``. Thread-safe."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client
        self.stream = f"{namespace}:log"
        self._head = f"{namespace}:head"
        self._before = register(client, "before.lua")
        self._acknowledged = register(client, "groups.lua", "acknowledged.lua")

    def between(self, first: Position, last: Position, count: int) -> list[Entry]:
        """Return up to ``count`` entries, both ends included; raises ``PositionLost`` if ``first`` has been trimmed."""
        entries = self._range(str(first), str(last), count)
        if entries and entries[0].position != first:
            raise PositionLost(f"the log begins at {entries[0].position}, after {first}")
        return entries

    def after(self, position: Position, count: int) -> list[Entry]:
        return self._range(f"({position}", "+", count)

    def _range(self, first: str, last: str, count: int) -> list[Entry]:
        with translated():
            return own_entries(self._client.xrange(self.stream, min=first, max=last, count=count))

    def newest(self, count: int) -> list[Entry]:
        """Return the newest entries in ascending order."""
        with translated():
            return own_entries(self._client.xrevrange(self.stream, count=count)[::-1])

    def follow(self, position: Position, count: int, block_ms: int) -> list[Entry]:
        with translated():
            reply = self._client.xread({self.stream: str(position)}, count=count, block=block_ms)
        found: Raw = reply[0][1] if reply else []
        entries = own_entries(found)
        if found and not entries:  # the next call would immediately return the same
            raise LogRefused(f"the log's entry {found[0][0]} was not written by this lab")
        return entries

    def lab(self) -> str:
        """Return the log's unique id: created with the log, kept through resets and epochs."""
        with translated():
            found = self._client.hget(self._head, "lab")
        if found is None:
            raise LogMissing("the log server holds no log yet")
        return str(found)

    def was_cut(self) -> bool:
        """Return whether the damaged end of the log's file was cut off and no epoch has started since."""
        with translated():
            return bool(self._client.hexists(self._head, "doubt"))

    def foreign(self) -> Position | None:
        """Return the newest ID if another program added it after the last change and an epoch can start after it."""
        try:
            with translated():
                pipe = self._client.pipeline(transaction=True)
                pipe.hmget(self._head, "epoch", "version")
                pipe.xinfo_stream(self.stream)
                head, info = pipe.execute()
        except LogRefused:  # there is no stream
            return None
        if None in head:
            raise LogMissing("the log server holds no log yet")
        last = Position.of_entry(info["last-generated-id"])
        return last if Position(*map(int, head)) < last and last.epoch < _FOREIGN_MAX else None

    def before(self, age_us: int) -> tuple[Position, Position]:
        """Return the epoch's newest position ``age_us`` ago, or the one before its oldest entry, and the head."""
        with translated():
            epoch, version, newest = self._before(keys=[self.stream, self._head], args=[age_us])
        return Position(int(epoch), int(version)), Position(int(epoch), int(newest))

    def length(self) -> int:
        with translated():
            return int(self._client.xlen(self.stream))

    def acknowledged(self, position: Position) -> list[str]:
        """Return the replicas that have acknowledged the entry at this position."""
        with translated():
            return list(self._acknowledged(keys=[self.stream], args=[str(position)]))

    def groups(self) -> list[GroupState]:
        """Return every replica's place in the log, by name; empty if there is no log."""
        try:
            with translated():
                infos = self._client.xinfo_groups(self.stream)
                pipe = self._client.pipeline(transaction=False)
                for info in infos:
                    pipe.xpending(self.stream, info["name"])
                summaries = pipe.execute()
        except LogRefused as error:
            if isinstance(error.__cause__, exceptions.ResponseError) and "no such key" in str(error.__cause__):
                return []
            raise
        return sorted(_group(info, summary) for info, summary in zip(infos, summaries, strict=True))

    def deliveries(self, replica: str, count: int) -> dict[Position, int]:
        """Return how often each of a replica's oldest pending entries has been delivered."""
        with translated():
            found = self._client.xpending_range(self.stream, replica, "-", "+", count, idle=0)
        return {Position.of_entry(one["message_id"]): one["times_delivered"] for one in found}

    def delivered(self) -> Delivered:
        at_us, infos = self._timed(lambda pipe: pipe.xinfo_groups(self.stream))
        return Delivered(at_us, {info["name"]: Position.of_entry(info["last-delivered-id"]) for info in infos})

    def now_us(self) -> int:
        """Return the log's time in microseconds since 1970: the server's clock, never before the last change."""
        return self._timed()[0]

    def _timed(self, *commands: Callable[[Any], object]) -> tuple[int, *tuple[Any, ...]]:
        """Return the log's time, and the replies to further commands at that moment."""
        with translated():
            pipe = self._client.pipeline(transaction=True)
            pipe.time()
            pipe.hmget(self._head, "at", "offset")
            for command in commands:
                command(pipe)
            (seconds, microseconds), (at, offset), *replies = pipe.execute()
        return max(int(seconds) * 1_000_000 + int(microseconds) + int(offset or 0), int(at or 0)), *replies

    def memory(self) -> Memory | None:
        """Return the memory in use; ``None`` if not reported. Takes the server 25 ms per million entries."""
        with translated():
            pipe = self._client.pipeline(transaction=False)
            pipe.memory_usage(self.stream, samples=0)  # all entries: a sample might not represent the rest
            pipe.info("memory")
            log_bytes, server = pipe.execute(raise_on_error=False)
        if isinstance(log_bytes, Exception) or isinstance(server, Exception):
            return None
        return Memory(int(log_bytes or 0), int(server["used_memory"]), int(server.get("maxmemory", 0)))

    def hazard(self) -> str | None:
        """Return why the server can lose acknowledged data, and what to change; ``None`` if no reason is visible."""
        try:
            with translated():
                info = self._client.info()
        except LogRefused:  # no INFO command, or the user is not allowed to run it
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
        return f"the log server can lose acknowledged data, because {what}; {change}"

    def promise(self) -> str | None:
        """Return what a failover of the log server can lose, and what prevents it; ``None`` without replicas of it."""
        try:
            with translated():
                info = self._client.info("replication")
        except LogRefused:
            return None
        if not (replicas := info.get("connected_slaves", 0)):
            return None
        others = f"{replicas} replicas" if replicas > 1 else "1 replica"
        found = f"the log server has {others}; no failover loses a write that is acknowledged with copies={replicas}"
        if "min_slaves_good_slaves" not in info:  # shown only if it is set
            found += "; set min-replicas-to-write to 1, or a master that is cut off takes writes that will be lost"
        return found


def _group(info: dict[str, Any], summary: dict[str, Any]) -> GroupState:
    oldest, newest = (Position.of_entry(name) if name else None for name in (summary["min"], summary["max"]))
    return GroupState(info["name"], Position.of_entry(info["last-delivered-id"]), summary["pending"], oldest, newest)
