"""The delay line, in which entries wait until a replica's schedule makes them due."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import islice
from typing import Generic, Protocol, TypeVar

from broker.delay.models import DelayModel, Order
from broker.entry import Operation
from broker.position import START, Position

_DRAWS = 2**53  # the integers that a double holds exactly


@dataclass(frozen=True)
class Schedule:
    """When entries are due on one replica. Order ``log`` applies entries strictly in sequence; ``arrival`` applies
    each entry when it is due. ``seed`` and ``replica`` give runs and replicas different draws.
    """

    model: DelayModel
    order: Order = "log"
    seed: int = 0
    replica: str = ""

    def delay_us(self, position: Position) -> int:
        """Return the delay of the entry at ``position`` in microseconds: the same on each call, and in each epoch."""
        share = 0.0 if self.model.is_constant else uniform(self.seed, self.replica, position)
        return round(self.model.draw_ms(share) * 1000)


def uniform(seed: int, replica: str, position: Position) -> float:
    """Return a number between 0 and 1, both excluded, determined by the arguments alone."""
    # Without the epoch: after a reset the same writes get the same delays, so a run can be repeated.
    digest = blake2b(f"{seed}/{replica}/{position.version}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 11) + 0.5) / _DRAWS


class Delayed(Protocol):
    """An entry that can wait in a line; ``at_us``: when its delay started, by the log's clock."""

    @property
    def position(self) -> Position: ...
    @property
    def op(self) -> Operation: ...
    @property
    def at_us(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


E = TypeVar("E", bound=Delayed)


class DelayLine(Generic[E]):
    """A bounded set of entries, each available once it is due. Pure logic; not thread-safe.

    An entry is due at its start plus its delay, by the log's clock. In order ``log`` it is not due before the
    entries ahead of it, so the effective delay is a running maximum; in order ``arrival`` entries are independent.
    It delays without throttling: any number of entries can be due at once. Nothing is due before ``set_schedule``.

    ``max_entries`` and ``max_bytes`` bound the waiting entries; ``room`` is the number of entries that still fit, the
    rest stays in the stream. One offer can exceed ``max_bytes`` by the size of the offer.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._schedule: Schedule | None = None
        self._constant_us: int | None = None
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._waiting: dict[Position, E] = {}  # in log order
        self._arrivals: list[tuple[int, int, Position]] = []  # a heap of epoch, due time, position; for order arrival
        self._bytes = self._not_before_us = 0
        self._taken_us = 0  # in order log: the due time of the last entry taken

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[E]:
        return iter(self._waiting.values())

    def __contains__(self, position: object) -> bool:
        return position in self._waiting

    @property
    def room(self) -> int:
        return 0 if self._bytes >= self._max_bytes else self._max_entries - len(self._waiting)

    def offer(self, entries: list[E]) -> list[Position]:
        """Add entries in log order; return the positions invalidated by a new epoch among them."""
        void: list[Position] = []
        in_arrival_order = self._in_arrival_order()
        for entry in entries:
            if entry.op == "epoch":
                void += self._waiting
                self.clear()
            self._waiting[entry.position] = entry
            self._bytes += entry.size_bytes
            if in_arrival_order:
                self._arrive(entry)
        return void

    def set_schedule(self, schedule: Schedule, now_us: int) -> None:
        """Set the delay, also of waiting entries; an entry made overdue is due at the time of the change."""
        if self._schedule is not None and schedule != self._schedule:
            self._not_before_us = now_us
        self._schedule = schedule
        self._constant_us = schedule.delay_us(START) if schedule.model.is_constant else None  # for speed
        self._taken_us = 0
        self._arrivals.clear()
        for entry in self._waiting.values():
            self._arrive(entry)

    def set_clock(self, now_us: int) -> None:
        """Adapt to a clock that was set: cap the times of the last change and the last take at now."""
        self._not_before_us = min(self._not_before_us, now_us)
        self._taken_us = min(self._taken_us, now_us)

    def due_us(self, entry: E) -> int | None:
        """Return when an entry alone is due, in microseconds by the log's clock. An epoch is due immediately."""
        if self._schedule is None:
            return None
        if entry.op == "epoch":
            return entry.at_us
        delay_us = self._constant_us
        if delay_us is None:
            delay_us = self._schedule.delay_us(entry.position)
        return max(entry.at_us + delay_us, self._not_before_us)

    def next_due_us(self) -> int | None:
        """Return when the next entry is due; ``None`` if nothing waits or no schedule is set."""
        if self._in_arrival_order():
            self._drop_taken()
            return self._arrivals[0][1] if self._arrivals else None
        due_us = self.due_us(next(iter(self._waiting.values()))) if self._waiting else None
        return None if due_us is None else max(due_us, self._taken_us)

    def due(self, now_us: int, limit: int) -> list[tuple[E, int]]:
        """Return due entries in the order to apply them, each with the time it was due; they stay until taken."""
        return self._due_arrivals(now_us, limit) if self._in_arrival_order() else self._due_in_log(now_us, limit)

    def take(self, due: Iterable[tuple[E, int]]) -> None:
        taken = [(entry.size_bytes, due_us) for entry, due_us in due if self._waiting.pop(entry.position, None)]
        self._bytes -= sum(size_bytes for size_bytes, _ in taken)
        self._taken_us = max([self._taken_us, *(due_us for _, due_us in taken)])

    def clear(self) -> None:
        """Drop everything: the entries will be delivered again, or a snapshot contains them."""
        self._waiting.clear()
        self._arrivals.clear()
        self._bytes = self._taken_us = 0

    def _in_arrival_order(self) -> bool:
        return self._schedule is not None and self._schedule.order == "arrival"

    def _due_in_log(self, now_us: int, limit: int) -> list[tuple[E, int]]:
        found: list[tuple[E, int]] = []
        latest_us = self._taken_us
        for entry in islice(self._waiting.values(), limit):
            due_us = self.due_us(entry)
            if due_us is None or due_us > now_us:
                break
            latest_us = max(latest_us, due_us)
            found.append((entry, latest_us))
        return found

    def _due_arrivals(self, now_us: int, limit: int) -> list[tuple[E, int]]:
        found: list[tuple[E, int]] = []
        seen: list[tuple[int, int, Position]] = []
        while len(found) < limit:
            self._drop_taken()
            if not self._arrivals or self._arrivals[0][1] > now_us:
                break
            seen.append(heappop(self._arrivals))
            _, due_us, position = seen[-1]
            found.append((self._waiting[position], due_us))
        for arrival in seen:  # they stay until they are taken
            heappush(self._arrivals, arrival)
        return found

    def _arrive(self, entry: E) -> None:
        if self._in_arrival_order() and (due_us := self.due_us(entry)) is not None:
            heappush(self._arrivals, (entry.position.epoch, due_us, entry.position))

    def _drop_taken(self) -> None:
        while self._arrivals and self._arrivals[0][2] not in self._waiting:
            heappop(self._arrivals)
