"""A judge to break rules with, in a world of one log server and one replica."""

from random import Random

import pytest

from broker.delay.line import Schedule
from broker.delay.models import Fixed
from broker.entry import Entry
from broker.position import START, Position
from lab.simulation.judges import Judge
from lab.simulation.model import Copy, Line, Newest, Violation
from lab.simulation.scheduler import Scheduler
from lab.simulation.trace import Trace
from nodes.runtime.gate import State

SERVER, REPLICA = "log1", "lab14-replica1"


class World:
    """One log server, and one replica in log order without delay."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(Random(0))
        self.judge = Judge(self.scheduler, Trace(self.scheduler))
        self.judge.lines[SERVER] = Line()
        self.judge.copies[REPLICA] = Copy(REPLICA)
        self.judge.opened(SERVER, "started", Position(1, 0), "o")
        self.judge.started(REPLICA, START, may_go_back=False)
        self.judge.scheduled(REPLICA, Schedule(Fixed(0)))
        self.apply(self.entry("1-0", "epoch"))

    @property
    def line(self) -> Line:
        return self.judge.lines[SERVER]

    def log(self, *positions: str, write_id: str = "w") -> None:
        for position in positions:
            epoch, version = position.split("-")
            change = ("set", f"k{version}", '"v"', f"{write_id}{position}")
            self.judge.appended(SERVER, [change], [["applied", epoch, version, "0"]])

    def entry(self, position: str, op: str = "set", write_id: str | None = None) -> Entry:
        place = Position.parse(position)
        name = write_id or ("o" if op == "epoch" else f"w{position}")
        return Entry(place, op, f"k{place.version}", '"v"', name, 0)  # type: ignore[arg-type]

    def commit(self, *entries: Entry) -> None:
        self.judge.committed(REPLICA, entries, State(entries[-1].position, None, None))

    def apply(self, *entries: Entry) -> None:
        self.commit(*entries)
        self.judge.applied(REPLICA, [entry.position for entry in entries])

    def acknowledge(self, position: str, write_id: str | None = None) -> None:
        self.judge.acknowledged(Position.parse(position), write_id or f"w{position}", Newest())


def violated(rule: str) -> "pytest.RaisesExc[Violation]":
    return pytest.raises(Violation, match=f"^{rule}")
