"""Simulated log servers, and what real ones do when they fail.

A server has a disk and a place in replication: it can be restarted with all that it had, or without its newest part,
and can take over from another one with what it had received by then.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from fakeredis import FakeServer
from fakeredis.model import StreamEntryKey

from lab.simulation.log_session import Parked, Session
from lab.simulation.scheduler import START_NS, Process, Scheduler

NO_REPLACED = "0" * 40
LOG = "lab14:log"
_WRITES = frozenset((b"evalsha", b"xreadgroup", b"hset", b"hdel", b"xadd", b"xack", b"xgroup"))
_WAKES = frozenset((b"evalsha", b"xadd", b"exec"))


class LogServer:
    """One server. ``copies``: how many other servers have what it has, as far as it knows."""

    def __init__(self, scheduler: Scheduler, name: str, port: int, draw_id: Callable[[], str]) -> None:
        self.name, self.port = name, port
        self.scheduler = scheduler
        self.store = FakeServer(version=(7, 4))
        self.compiled: dict[bytes, Any] = {}
        self.offset_us = 0  # of its clock
        self.is_up = True
        self.is_master = True
        self.is_frozen = False
        self.refuses = ""  # the error with which it answers every script, as a server whose disk is full
        self.incarnation = 0
        self.copies: Callable[[], int] = int
        self.replication_ids = (draw_id(), NO_REPLACED)
        self.on_script: Callable[[bytes, Sequence[bytes], Any], None] = lambda *_: None  # its SHA-1, ARGV and reply
        # Whose, XACK or XADD, and its arguments.
        self.on_write: Callable[[Process, str, Sequence[bytes]], None] = lambda *_: None
        self._draw_id = draw_id
        self._parked: list[Parked] = []
        self.backlog: list[Callable[[], None]] = []  # what arrives while it is frozen

    def now_us(self) -> int:
        return (START_NS + self.scheduler.now_ns) // 1000 + self.offset_us

    # -- answering ----------------------------------------------------------------------------------------------------

    def open(self, answer: Callable[[Any], None], client: Process) -> Session:
        return Session(self, answer, client)

    def execute(self, session: Session, commands: Sequence[Sequence[bytes]]) -> None:
        """Execute commands one after another; the replies go to the session."""
        changed = False
        for fields in commands:
            name = fields[0].lower()
            if not self.is_master and name in _WRITES:
                session.refuse("READONLY You can't write against a read only replica.")
            elif self.refuses and name == b"evalsha":
                session.refuse(self.refuses)
            else:
                session._process_command(list(fields))
                changed = changed or name in _WAKES
        if changed:
            self.wake()

    def park(self, parked: Parked, timeout_seconds: float | None) -> None:
        self._parked.append(parked)
        if timeout_seconds:
            parked.timer = self.scheduler.after(timeout_seconds, lambda: self._time_is_up(parked))

    def wake(self) -> None:
        """Let blocked commands look again."""
        still = []
        for parked in self._parked:
            if parked.try_again():
                if parked.timer is not None:
                    parked.timer.cancel()
            else:
                still.append(parked)
        self._parked = still

    def _time_is_up(self, parked: Parked) -> None:
        if self.is_frozen:
            self.backlog.append(lambda: self._time_is_up(parked))
        elif parked in self._parked:
            self._parked.remove(parked)
            parked.try_again(last=True)

    def close(self, session: Session) -> None:
        self._parked = [parked for parked in self._parked if parked.session is not session]
        session._cleanup(self.store)
        session.close()

    # -- what it holds ------------------------------------------------------------------------------------------------

    def command(self, *words: str) -> Any:
        """Return the reply to a command, as redis-cli shows it."""
        replies: list[Any] = []
        session = self.open(replies.append, self.scheduler.world)
        self.execute(session, [[word.encode() for word in words]])
        self.close(session)
        return replies[0]

    def pending(self, group: str) -> int:
        """How many entries are pending for a group."""
        found = self.command("XPENDING", LOG, group)
        return int(found[0]) if isinstance(found, list) else 0  # without a group

    def lags(self) -> dict[str, tuple[int | None, int]]:
        """Return each group's ``lag``, and the number of entries after its last delivered one."""
        found = self.command("XINFO", "GROUPS", LOG)
        rows = found if isinstance(found, list) else []  # without a log
        groups = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
        return {group[b"name"].decode(): (group[b"lag"], self._after(group[b"last-delivered-id"])) for group in groups}

    def _after(self, last: bytes) -> int:
        entries = self.store.dbs[0][LOG.encode()].value
        return len(entries.stream_read(StreamEntryKey.parse_str(last), None))

    # -- failing ------------------------------------------------------------------------------------------------------

    def content(self) -> bytes:
        """Return everything that it holds, as it is now."""
        return pickle.dumps(self.store.dbs[0]._dict, pickle.HIGHEST_PROTOCOL)

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        self.is_frozen = False
        backlog, self.backlog = self.backlog, []
        for call in backlog:
            call()

    def stop(self) -> None:
        """End the process: every connection breaks."""
        self.is_up = False
        self.is_frozen = False
        self.backlog.clear()
        self._parked.clear()
        self.store.sockets.clear()
        self.store.subscribers.clear()
        self.incarnation += 1

    def start(self, content: bytes | None = None) -> None:
        """Start again, with this content or with all that it had."""
        if content is not None:
            self._take(content)
        self.store.script_cache.clear()
        self.replication_ids = (self._draw_id(), NO_REPLACED)
        self.is_up = True

    def promote(self, content: bytes, former: LogServer) -> None:
        """Become master with what was received from the former one."""
        self._take(content)
        self.replication_ids = (self._draw_id(), former.replication_ids[0])
        self.is_master = True

    def demote(self) -> None:
        """Become a replica of another server: clients that block are told so."""
        self.is_master = False
        for parked in self._parked:
            if parked.timer is not None:
                parked.timer.cancel()
            parked.session.refuse("UNBLOCKED force unblock from blocking operation")
        self._parked.clear()

    def _take(self, content: bytes) -> None:
        self.store.dbs[0]._dict = pickle.loads(content)  # noqa: S301 - its own
