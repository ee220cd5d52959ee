"""Whether a program keeps its delay: no entry is shown before it is due, and 99 of 100 soon after."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from broker.entry import Entry
from broker.position import START
from broker.stats import quantile
from lab.checking.history import Operation
from lab.checking.verdict import Verdict
from lab.grade.fault import Fault, verdict
from lab.grade.record import Poll, Record, Setting

LATE_MS = 50.0
_LEARNS_WITHIN_US = 2_000_000  # a program reads its delay once a second
_CLOCKS_APART_US = 5_000  # the grader's estimate of the log's time can be behind by a round trip


class Shown(NamedTuple):
    """When an entry was first seen, and last not seen; the polls around it tell."""

    entry: Entry
    unseen: Poll | None
    seen: Poll | None


def judge(record: Record) -> list[Verdict]:
    shown = list(_shown(record))
    return [_early(record, shown), _late(record, shown)]


def delays_ms(settings: list[Setting], since_us: int, until_us: int) -> tuple[float, float] | None:
    """Return the least and the greatest delay that can have been active in between; ``None`` if one is not known."""
    if not settings or settings[0].set_us > since_us:
        return None
    ends_us = [following.set_us + _LEARNS_WITHIN_US for following in settings[1:]]
    active = [
        setting.delay_ms
        for setting, end_us in zip(settings, [*ends_us, until_us], strict=True)
        if setting.sent_us <= until_us and end_us >= since_us
    ]
    return min(active), max(active)


def _shown(record: Record) -> Iterator[Shown]:
    polls = sorted((p for p in record.polls if p.position is not None), key=lambda poll: poll.returned_us)
    furthest = list(accumulate((poll.position or START for poll in polls), max))
    for entry in record.ledger.entries:
        if entry.op != "epoch":
            at = bisect_left(furthest, entry.position)
            yield Shown(entry, polls[at - 1] if at else None, polls[at] if at < len(polls) else None)


def _early(record: Record, shown: list[Shown]) -> Verdict:
    """No entry is shown before the least delay that can have been active has passed since it was written."""
    tested, faults = 0, list[tuple[float, Fault]]()
    for entry, _, poll in shown:
        found = poll and delays_ms(record.settings, entry.at_us, poll.returned_us)
        if poll is None or found is None or not found[0]:
            continue
        tested += 1
        after_us = poll.returned_us - entry.at_us
        if after_us + _CLOCKS_APART_US < found[0] * 1000:
            when = (
                f"{entry.position} was written at {record.time(entry.at_us)}, with a delay of {found[0]:g} ms or more"
            )
            words = f"{when}; it was shown {max(0, after_us) / 1000:.1f} ms later, at {record.time(poll.returned_us)}"
            fault = Fault(words, [poll.as_read(record.node)])
            faults.append((after_us - found[0] * 1000, fault))
    faults.sort(key=lambda fault: fault[0])  # the earliest one first
    return verdict("early", tested, [fault for _, fault in faults])


def _late(record: Record, shown: list[Shown]) -> Verdict:
    """99 of 100 entries are shown less than 50 ms after they are due, or than a built-in replica shows them."""
    end_us = max((poll.returned_us for poll in record.polls), default=0)
    pairs = [(found, _lateness_ms(record, found, end_us)) for found in shown]
    known = [(found, lateness) for found, lateness in pairs if lateness is not None]
    if not known:
        return verdict("late", 0, [])
    worst, _ = max(known, key=lambda pair: pair[1][0])
    least, most = [lateness[0] for _, lateness in known], [lateness[1] for _, lateness in known]
    said = f"p99 of the lateness {_bounds(least, most)}, of {len(least):,} entries"
    peers = list(record.peer_lateness_ms.values())
    at_most_ms = LATE_MS + (quantile(peers, 0.99) if peers else 0.0)
    if peers:
        said += f"; of a built-in replica {quantile(peers, 0.99):.1f} ms, of {len(peers):,}"
    if quantile(least, 0.99) < at_most_ms:
        return verdict("late", len(least), [], said)
    return verdict("late", len(least), [Fault(f"{said}; {_describe(record, worst)}", _reads(record, worst))])


def _lateness_ms(record: Record, found: Shown, end_us: int) -> tuple[float, float | None] | None:
    """Return the least and the greatest lateness; the latter is unknown for an entry that was never shown."""
    entry, unseen, seen = found
    known = delays_ms(record.settings, entry.at_us, end_us if seen is None else seen.returned_us)
    if known is None:
        return None
    due_us = entry.at_us + known[1] * 1000
    if seen is None and (unseen is None or end_us < due_us):
        return None
    least_us = max(0.0, (entry.at_us if unseen is None else unseen.invoked_us) - due_us)
    return least_us / 1000, None if seen is None else max(least_us, seen.returned_us - due_us) / 1000


def _bounds(least: list[float], most: list[float | None]) -> str:
    known = [found for found in most if found is not None]
    if len(known) < len(most):
        return f"{quantile(least, 0.99):.1f} ms or more ({len(most) - len(known)} were never shown)"
    return f"between {quantile(least, 0.99):.1f} and {quantile(known, 0.99):.1f} ms"


def _describe(record: Record, worst: Shown) -> str:
    written = f"the latest: {worst.entry.position}, written at {record.time(worst.entry.at_us)}"
    if worst.unseen is not None:
        written += f", not shown yet at {record.time(worst.unseen.invoked_us)}"
    return f"{written}, {'never shown' if worst.seen is None else f'shown at {record.time(worst.seen.returned_us)}'}"


def _reads(record: Record, worst: Shown) -> list[Operation]:
    return [poll.as_read(record.node) for poll in (worst.unseen, worst.seen) if poll is not None]
