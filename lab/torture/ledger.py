"""The ledger: every entry of the log, read independently of the replicas during the run."""

import json
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self

from broker.address import parse
from broker.connection import Link, connect
from broker.entry import Entry
from broker.errors import LogError
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Events
from lab.errors import LabError
from lab.local.layout import NAMESPACE

_PAGE = 1000
_PAUSE_SECONDS = 0.2
_EVENTS = 1000


class Cut(NamedTuple):
    """The log lost what it had after ``origin``, before the epoch that starts at ``start``."""

    origin: Position
    start: Position


class Ledger:
    """Entries in log order, and the resulting store at any position that the log has not lost."""

    def __init__(self, since: Position, entries: Iterable[Entry], changed: Iterable[Position] = ()) -> None:
        """``since``: the head of the log before the first of the entries. ``changed``: where it later had another."""
        self.since = since
        self.entries = list(entries)
        self.changed = list(changed)
        self.at = {entry.position: entry for entry in self.entries}
        self.cuts = [Cut(e.goes_on_from or START, e.position) for e in self.entries if e.op == "epoch"]
        self._by_key: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.op != "epoch":
                self._by_key[entry.key].append(entry)

    def newest(self, key: str, position: Position) -> Entry | None:
        """Return the entry that a store at ``position`` shows for the key; ``None`` if the ledger has none."""
        entries = self.of_key(key)
        found = bisect_right(entries, position, key=lambda entry: entry.position)
        entry = entries[found - 1] if found else None
        cut = entry and self.lost_at(entry.position)
        return None if entry is None or entry.op == "delete" or (cut and cut.start <= position) else entry

    def of_key(self, key: str) -> list[Entry]:
        return self._by_key.get(key, [])

    def lost_at(self, position: Position) -> Cut | None:
        """Return when the log lost what it had at this position; ``None`` if it did not."""
        following = bisect_right(self.cuts, position, key=lambda cut: cut.start)
        return next((cut for cut in self.cuts[following : following + 1] if cut.origin < position), None)

    def has_always_had(self, position: Position) -> bool:
        """Return whether no server can have gone on without this entry, in an epoch that is missing now."""
        later = (cut for cut in self.cuts if cut.origin >= position)
        return position in self.at and all(cut.start.epoch == cut.origin.epoch + 1 for cut in later)

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
        self._link: Link | None = None
        self._lost: dict[str, dict[str, str]] = {}  # the events, by their ids
        self._last_event = "0-0"
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        try:
            log, events = self._connected()
            self._last = self._since = log.head().position
            self._last_event = events.last_id()
        except LogError as error:
            raise LabError(f"the log cannot be read: {error}") from None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def position(self) -> Position:
        """The last entry that was read."""
        return self._last

    def finish(self) -> Ledger:
        """Return all entries up to now. Raises ``LabError`` if the log cannot be read without a gap."""
        self.__exit__()
        self._link = None  # the server may have been a master then
        try:
            self._read()
            if self._connected()[0].head().position > self._last:
                raise self._trimmed()
            return Ledger(self._since, self._entries, self._changed())
        except LogError as error:
            raise LabError(f"the log cannot be read to its end: {error}") from None

    def lost(self) -> list[dict[str, str]]:
        """Return the events so far in which the lab names lost writes. Raises ``LabError``."""
        try:
            self._read_events("0-0")  # those published at another server while this was connected to a former one
        except LogError as error:
            raise LabError(f"the events cannot be read: {error}") from None
        return list(self._lost.values())

    def _run(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            try:
                self._read()
            except (LogError, LabError):
                self._link = None

    def _read(self) -> None:
        log, _ = self._connected()
        while page := log.history.after(self._last, _PAGE):
            first = page[0]
            if first.goes_on_from is not None and first.goes_on_from < self._last:
                self._go_back(first.goes_on_from)
                continue
            if first.goes_on_from != self._last and not self._last.is_followed_by(first.position):
                (oldest,) = log.history.after(START, 1)
                if oldest.position > self._last:  # otherwise the log has a hole, which the judge reports
                    raise self._trimmed()
            self._entries += page
            self._last = page[-1].position
        self._read_events(self._last_event)

    def _go_back(self, origin: Position) -> None:
        """Drop what the log has lost. It may go on with entries of a server that was not followed before."""
        kept = bisect_right(self._entries, origin, key=lambda entry: entry.position)
        del self._entries[kept:]
        self._since = min(self._since, origin)
        self._last = self._entries[-1].position if self._entries else self._since

    def _read_events(self, after: str) -> None:
        _, events = self._connected()
        while page := events.after(after, 1, _EVENTS):
            after = page[-1].id
            self._lost |= {event.id: event.fields for event in page if event.fields["kind"] == "lost"}
        self._last_event = after

    def _changed(self) -> list[Position]:
        """Return the positions, of those still in the log, at which it had another entry before, or none."""
        log, _ = self._connected()
        before, last = {entry.position: entry for entry in self._entries}, START
        changed = []
        while page := log.history.after(last, _PAGE):
            last = page[-1].position
            changed += [
                e.position for e in page if self._since < e.position <= self._last and before.get(e.position) != e
            ]
        return changed

    def _trimmed(self) -> LabError:
        return LabError(f"the log was trimmed before the entries after {self._last} could be read; raise LAB_LOG_KEEP")

    def _connected(self) -> tuple[ReplicationLog, Events]:
        if self._link is None:
            self._link = Link(parse(self._redis_url(), NAMESPACE))
            client = connect(self._link)
            self._parts = ReplicationLog(client, NAMESPACE), Events(client, NAMESPACE)
        self._link.follow()
        return self._parts
