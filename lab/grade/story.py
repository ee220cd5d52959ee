"""The story of a level: what was wrong in words, and the events around it for a space-time diagram."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from broker.position import Position
from lab.checking.history import Operation
from lab.checking.verdict import Verdict
from lab.grade import words
from lab.grade.record import Lane, Mark, Record
from lab.report.spacetime import Event

LANES = ("grader", "log", "replica", "reader")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_POSITION = re.compile(r"(?<![\w-])\d{1,15}-\d{1,15}(?![\w-])", re.ASCII)
_KILL: tuple[Lane, str] = ("grader", "killed")
_MARKS_MAX = 8  # the last ones before the fault was seen
_TO_REPLICA = ("killed", "started", "suspended", "resumed", "delay set")


class Story(NamedTuple):
    """``events`` are dated in microseconds since the level began."""

    words: str
    events: list[Event]


def tell(record: Record, verdicts: Sequence[Verdict]) -> Story:
    """Tell the counterexample of the first guarantee that was violated, or else what was measured or not tested."""
    violated = next((found for found in verdicts if found.judgement == "violated"), None)
    if violated is not None:
        return Story(violated.words, _events(record, violated))
    untested = [found.guarantee for found in verdicts if found.judgement != "held"]
    if untested or not verdicts:
        last = next((poll.words for poll in reversed(record.polls) if poll.position is None), "")
        return Story(f"nothing was tested: {', '.join(untested)}" + (f"; {last}" if last else ""), [])
    return Story("; ".join(found.words for found in verdicts if found.words), [])


def _events(record: Record, fault: Verdict) -> list[Event]:
    named = [Position.parse(found) for found in _POSITION.findall(_QUOTED.sub("", fault.words))]
    positions = set(named) & record.ledger.at.keys()
    happened = [*_written(record, positions), *_acknowledged(record, positions), *_shown(fault.operations)]
    times = [event.at_us for event in happened]
    if not fault.operations:  # it is about the end
        times += [record.began_us, *(poll.returned_us for poll in record.polls[-1:])]
    happened += _done(record, min(times, default=record.began_us), max(times, default=record.began_us))
    ordered = sorted(dict.fromkeys(happened), key=lambda event: event.at_us)
    return [event._replace(at_us=event.at_us - record.began_us) for event in ordered]


def _written(record: Record, positions: set[Position]) -> Iterator[Event]:
    for position in positions:
        entry = record.ledger.at[position]
        change = {"set": f"{entry.key} = {words.quoted(words.value(entry))}" if entry.op == "set" else ""}
        change |= {"delete": f"{entry.key} deleted", "epoch": "the epoch starts"}
        yield Event(entry.at_us, "log", f"{position}: {change[entry.op]}")


def _acknowledged(record: Record, positions: set[Position]) -> Iterator[Event]:
    for mark in record.marks:
        found = sorted(positions.intersection(mark.positions))
        if found and words.is_acknowledgement(mark.words):
            yield Event(mark.at_us, mark.lane, f"acknowledged {', '.join(map(str, found))}", "log")


def _shown(operations: list[Operation]) -> Iterator[Event]:
    for read in operations:
        if not read.key:
            shown = f"at {read.position}"
        elif read.version:
            shown = f"at {read.position}: {read.key} = {words.quoted(read.value)}, version {read.version}"
        else:
            shown = f"at {read.position}: no {read.key}"
        yield Event(read.returned_us, "replica", shown, "reader")


def _done(record: Record, since_us: int, until_us: int) -> list[Event]:
    """What was done to the program, or to the log, in the meantime."""
    kills = [Mark(death.at_us, *_KILL) for death in record.deaths]  # when the signal was sent
    marks = [mark for mark in record.marks if mark[1:3] != _KILL and not words.is_acknowledgement(mark.words)]
    done = sorted([*marks, *kills], key=lambda mark: mark.at_us)
    return [_event(mark) for mark in done if since_us <= mark.at_us <= until_us][-_MARKS_MAX:]


def _event(mark: Mark) -> Event:
    to = "replica" if mark.lane == "grader" and mark.words.startswith(_TO_REPLICA) else None
    return Event(mark.at_us, mark.lane, mark.words, to)
