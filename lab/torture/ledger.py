"""The ledger: every entry of the log, read independently of the replicas during the run."""

import json
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Self

from broker.connection import connect
from broker.entry import Entry
from broker.errors import LogError
from broker.log import ReplicationLog
from broker.position import START, Position
from lab.errors import LabError
from lab.local.layout import NAMESPACE

_PAGE = 1000
_PAUSE_SECONDS = 0.2


class Ledger:
    """Entries in log order, and the resulting store at any position."""

    def __init__(self, since: Position, entries: Iterable[Entry]) -> None:
        """``since``: the head of the log before the first of the entries."""
        self.since = since
        self.entries = list(entries)
        self.at = {entry.position: entry for entry in self.entries}
        self._resets = [e.position for e in self.entries if e.op == "epoch" and e.goes_on_from is None]
        self._by_key: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.op != "epoch":
                self._by_key[entry.key].append(entry)

    def newest(self, key: str, position: Position) -> Entry | None:
        """Return the entry that a store at ``position`` shows for the key; ``None`` if the ledger has none."""
        entries = self._by_key.get(key, [])
        found = bisect_right(entries, position, key=lambda entry: entry.position)
        if not found or entries[found - 1].op == "delete":
            return None
        resets = bisect_right(self._resets, position)
        entry = entries[found - 1]
        return None if resets and entry.position < self._resets[resets - 1] else entry

    def holding(self) -> dict[tuple[str, str], list[Position]]:
        found: dict[tuple[str, str], list[Position]] = defaultdict(list)
        for entry in self.entries:
            if entry.op == "set":
                found[entry.key, json.loads(entry.value)].append(entry.position)
        return found


class Follower:
    """Reads the log from its current end in a thread, and reconnects after every lost connection."""

    def __init__(self, redis_url: Callable[[], str]) -> None:
        """``redis_url`` is called again after each error. Raises ``LabError`` if the log cannot be read at all."""
        self._redis_url = redis_url
        self._stop = threading.Event()
        self._entries: list[Entry] = []
        self._log: ReplicationLog | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        try:
            self._last = self._since = self._connected().head().position
        except LogError as error:
            raise LabError(f"the log cannot be read: {error}") from None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self) -> Ledger:
        """Return all entries up to now. Raises ``LabError`` if the log cannot be read without a gap."""
        self.__exit__()
        try:
            self._read()
            if self._connected().head().position > self._last:
                raise self._trimmed()
        except LogError as error:
            raise LabError(f"the log cannot be read to its end: {error}") from None
        return Ledger(self._since, self._entries)

    def _run(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            try:
                self._read()
            except (LogError, LabError):
                self._log = None

    def _read(self) -> None:
        log = self._connected()
        while page := log.history.after(self._last, _PAGE):
            first = page[0]
            if first.goes_on_from != self._last and not self._last.is_followed_by(first.position):
                (oldest,) = log.history.after(START, 1)
                if oldest.position > self._last:  # otherwise the log has a hole, which the judge reports
                    raise self._trimmed()
            self._entries += page
            self._last = page[-1].position

    def _trimmed(self) -> LabError:
        return LabError(f"the log was trimmed before the entries after {self._last} could be read; raise LAB_LOG_KEEP")

    def _connected(self) -> ReplicationLog:
        if self._log is None:
            self._log = ReplicationLog(connect(self._redis_url()), NAMESPACE)
        return self._log
