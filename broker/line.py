"""The delay line: entries wait here, delivered and pending, until they are due."""

from __future__ import annotations

from collections import deque
from itertools import islice

from broker.delay import DelayModel
from broker.entry import Entry
from broker.position import Position


class DelayLine:
    """A bounded queue in log order whose head may be taken when it is due. Pure logic; not thread-safe.

    An entry is due at its publish time plus its delay, by the log's clock, and not before the entries ahead of it, so
    the effective delay is a running maximum. It is a line and not a rate limit: any number of entries may be due at
    once. Nothing is due before ``set_model`` has said what the delay is.

    ``max_entries`` and ``max_bytes`` bound what waits; ``room`` says how much more may be offered, and what does not
    fit stays in the stream. One offer may go past ``max_bytes`` by what it brings.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._model: DelayModel | None = None
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._waiting: deque[Entry] = deque()
        self._bytes = 0
        self._not_before_us = 0

    def __len__(self) -> int:
        """How many entries wait."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more entries may be offered."""
        return 0 if self._bytes >= self._max_bytes else self._max_entries - len(self._waiting)

    def offer(self, entries: list[Entry]) -> list[Position]:
        """Let entries wait, in log order. Returns the positions that a new epoch among them made void."""
        void: list[Position] = []
        for entry in entries:
            if entry.op == "epoch":
                void += [waiting.position for waiting in self._waiting]
                self._waiting.clear()
                self._bytes = 0
            self._waiting.append(entry)
            self._bytes += entry.size_bytes
        return void

    def set_model(self, model: DelayModel, now_us: int) -> None:
        """Set the delay, also of what waits already; what is overdue by a change is due at the moment of the change."""
        if self._model is not None and model != self._model:
            self._not_before_us = now_us
        self._model = model

    def due_us(self, entry: Entry) -> int | None:
        """When an entry is due: microseconds since 1970 by the log's clock. An epoch is due at once."""
        if self._model is None:
            return None
        if entry.op == "epoch":
            return entry.at_us
        return max(entry.at_us + self._model.delay_us(entry.position), self._not_before_us)

    def next_due_us(self) -> int | None:
        """When the head is due; ``None`` when nothing waits, or nobody knows yet."""
        return self.due_us(self._waiting[0]) if self._waiting else None

    def oldest(self) -> Entry | None:
        """The entry at the head."""
        return self._waiting[0] if self._waiting else None

    def due(self, now_us: int, limit: int) -> list[tuple[Entry, int]]:
        """The entries at the head that are due, each with when it became so; they stay until ``remove``."""
        found: list[tuple[Entry, int]] = []
        latest_us = 0
        for entry in islice(self._waiting, limit):
            due_us = self.due_us(entry)
            if due_us is None or due_us > now_us:
                break
            latest_us = max(latest_us, due_us)
            found.append((entry, latest_us))
        return found

    def remove(self, through: Position) -> None:
        """Drop what waits up to and including ``through``: it has been applied."""
        while self._waiting and self._waiting[0].position <= through:
            self._bytes -= self._waiting.popleft().size_bytes

    def clear(self) -> None:
        """Drop everything: the entries will be delivered again, or a snapshot holds them."""
        self._waiting.clear()
        self._bytes = 0
