"""What is judged of a replica: after every change of its store, and of what is pending for it.

What it applies is compared with the log, its store with the model at its position, the time with the delay, and an
acknowledgement with what is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broker.delay.line import Schedule
from broker.entry import Entry, digest
from broker.position import Position
from broker.snapshot import Snapshot
from lab.simulation.log_judge import LogJudge
from lab.simulation.model import Copy, Step, Violation, since
from nodes.runtime.gate import State

_QUICK_US = 500  # by which a clock that agrees with a quick answer can be ahead once the log's clock was set
_NOTICES_NS = 5 * 10**9


class Judge(LogJudge):
    """Judges the log and the replicas."""

    def started(self, name: str, position: Position, *, may_go_back: bool) -> None:
        """A replica has opened its store."""
        copy = self.copies.setdefault(name, Copy(name))
        if position < copy.position and not may_go_back:
            raise Violation("a position does not go back", f"{name} was at {copy.position}, and starts at {position}")
        copy.position, copy.durable, copy.beyond = position, position, set()
        copy.is_committing = copy.is_replaced = False
        self.skewed(name, 0)

    def scheduled(self, name: str, schedule: Schedule) -> None:
        copy = self.copies[name]
        copy.orders |= {copy.order, schedule.order}
        copy.schedules.append((self._scheduler.now_ns, schedule))

    def skewed(self, name: str, skew_us: int) -> None:
        self.copies[name].skews.append((self._scheduler.now_ns, skew_us))

    def committed(self, name: str, entries: Sequence[Entry], after: State) -> None:
        """A replica has committed entries, and is at this state."""
        copy = self.copies[name]
        for entry in entries:
            self._check_entry(copy, entry)
        self._check_times(copy, [entry for entry in entries if entry.op != "epoch"])
        copy.durable, copy.is_committing = after.position, True

    def applied(self, name: str, positions: Iterable[Position]) -> None:
        """A replica counts entries as applied, after they were committed."""
        copy = self.copies[name]
        is_replaced, copy.is_committing, copy.is_replaced = copy.is_replaced, False, False
        if is_replaced:
            return
        for position in sorted(positions):
            logged = self._entries.get(position)
            if copy.has(position):
                raise Violation("each entry is applied once", f"{name} at {copy.position} applies {position} again")
            if logged is not None and logged.is_epoch and logged.origin is None:
                copy.position, copy.beyond = position, set()
            elif copy.position.is_followed_by(position):
                copy.position = position
            elif "arrival" not in {copy.order, *copy.orders}:
                raise Violation("entries are applied in order", f"{name} at {copy.position} applies {position}")
            else:
                copy.beyond.add(position)
            while (following := Position(copy.position.epoch, copy.position.version + 1)) in copy.beyond:
                copy.beyond.discard(following)
                copy.position = following
            self.counts["applied"] += 1
        copy.orders.clear()
        if copy.position != copy.durable:
            raise Violation(
                "a position covers what is applied",
                f"{name} is at {copy.durable}, but has applied everything up to {copy.position}",
            )

    def _check_entry(self, copy: Copy, entry: Entry) -> None:
        logged = self._entries.get(entry.position)
        if logged is None:
            raise Violation(
                "what is applied is in the log", f"{copy.name} applies {entry.position}, which is not logged"
            )
        if logged.write_id != entry.write_id:
            raise Violation(
                "what is applied is in the log",
                f"{copy.name} applies {entry.write_id} at {entry.position}, where the log has {logged.write_id}",
            )
        self._observe(entry.position, entry.write_id)

    def _check_times(self, copy: Copy, entries: Sequence[Entry]) -> None:
        if not entries or not copy.schedules:
            return
        now_ns = self._scheduler.now_ns
        oldest_ns = min(self._entries[entry.position].at_ns for entry in entries)
        schedules, skews_us = since(copy.schedules, oldest_ns), since(copy.skews, oldest_ns)
        ahead_us = self._stepped_us(oldest_ns) + max(skews_us)
        for entry in entries:
            least_us = min(schedule.delay_us(entry.position) for schedule in schedules)
            after_us = (now_ns - self._entries[entry.position].at_ns) / 1000
            if after_us < least_us - ahead_us - (_QUICK_US if self._clock_steps else 1):
                raise Violation(
                    "nothing is applied before it is due",
                    f"{copy.name} applies {entry.position} after {after_us / 1000:.1f} ms, with a delay of "
                    f"{least_us / 1000:g} ms and a clock ahead by {ahead_us / 1000:g} ms",
                )

    def _stepped_us(self, since_ns: int) -> int:
        """How far a clock can have been ahead of the time of an entry that was logged then.

        Set back, the log's time stands still until the primary's next upkeep, and dates entries too early meanwhile;
        set forward, what waits is due, and the primary lets the log's time stand still as well.
        """
        return sum(step.by_us for step in self._clock_steps if step.until_ns is None or step.until_ns > since_ns)

    def clock_set(self, step_us: int) -> None:
        """The clock of the log was set, or is another server's."""
        self._clock_steps.append(Step(abs(step_us)))

    def clock_steadied(self, by_us: int) -> None:
        """The primary has moved the log's time, by 0 if it agrees; each replica notices with its next heartbeats."""
        until_ns = self._scheduler.now_ns + _NOTICES_NS
        if by_us:
            self._clock_steps.append(Step(abs(by_us), until_ns))
        for step in self._clock_steps:
            step.until_ns = step.until_ns or until_ns

    def installed(self, name: str, taken: Snapshot) -> None:
        """A replica has installed a snapshot."""
        copy = self.copies[name]
        logged = self._entries.get(taken.position)
        if logged is not None:
            self._observe(taken.position, logged.write_id)
        _, found = digest((record.write_id, record.key, record.value) for record in taken.records)
        self._check_digest(name, taken.position, int(found, 16))
        copy.position, copy.durable, copy.beyond = taken.position, taken.position, set()
        copy.is_replaced = copy.is_committing
        self.counts["snapshots"] += 1

    def claimed(self, name: str, position: Position) -> None:
        """A replica tells that it has applied and acknowledged everything up to a position."""
        if position > self.copies[name].position:
            raise Violation(
                "an entry is pending until its effect is durable",
                f"{name} has acknowledged everything up to {position}, it says, but is at {self.copies[name].position}",
            )

    def continued(self, name: str, position: Position) -> None:
        """A replica has moved to the start of an epoch that keeps the content."""
        copy, logged = self.copies[name], self._entries.get(position)
        if logged is None or logged.origin != copy.position:
            origin = None if logged is None else logged.origin
            raise Violation(
                "a position covers what is applied",
                f"{name} at {copy.position} moves to {position}, which continues from {origin}",
            )
        copy.position = copy.durable = position

    def content(self, name: str, position: Position, found: int) -> None:
        """A store has this digest."""
        if not self.copies[name].beyond:
            self._check_digest(name, position, found)

    def _check_digest(self, name: str, position: Position, found: int) -> None:
        expected = self._digests.get(position)
        if expected is not None and expected != found:
            raise Violation(
                "equal positions have equal content", f"{name} at {position} has another content than the log"
            )

    def acknowledged_by(self, name: str, positions: Iterable[Position]) -> None:
        """A group acknowledges entries: they are no longer pending."""
        copy = self.copies.get(name)
        if copy is None:
            return
        for position in positions:
            if copy.has(position) or any(position < void for void in self._void):
                continue
            logged = self._entries.get(position)
            if position in self.foreign or (logged is not None and logged.is_epoch):
                continue
            raise Violation(
                "an entry is pending until its effect is durable",
                f"{name} acknowledges {position}, but has committed {copy.position}",
            )
