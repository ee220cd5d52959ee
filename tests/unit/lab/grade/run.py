"""A program's run at a level: correct, until a test changes what it shows."""

from dataclasses import dataclass, field, replace
from typing import Any

from broker.entry import Entry
from broker.position import Position
from lab.checking.history import History, Operation, Plan
from lab.grade.judges import judge
from lab.grade.record import Death, Mark, Poll, Record, Setting
from lab.grade.words import text
from lab.torture.ledger import Ledger

BEGAN_US = 1_700_000_000_000_000
SINCE = Position(1, 0)
KEYS = ("k1", "k2", "a/b", "ü")


def at(milliseconds: float) -> int:
    return BEGAN_US + round(milliseconds * 1000)


def position(found: str) -> Position:
    return Position.parse(found)


@dataclass
class Run:
    """Times are in milliseconds since the level began. Entries are ``k1``, ``k2``, ``a/b``, ``ü`` in turns."""

    level: int
    entries: list[Entry] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mark(0, "grader", "started")

    @property
    def head(self) -> Position:
        return self.entries[-1].position if self.entries else SINCE

    @property
    def ledger(self) -> Ledger:
        return Ledger(SINCE, self.entries)

    def write(self, at_ms: float, key: str = "", value: str = "", *, delete: bool = False) -> Position:
        number = len(self.entries) + 1
        where = Position(self.head.epoch, self.head.version + 1)
        key = key or KEYS[(number - 1) % len(KEYS)]
        body = "" if delete else f'"{value or f"v{number}"}"'
        self.entries.append(Entry(where, "delete" if delete else "set", key, body, f"w{number}", at(at_ms)))
        return where

    def reset(self, at_ms: float, *, goes_on: str = "") -> None:
        """Start an epoch: empty, or as it was at a position."""
        origin = position(goes_on) if goes_on else Position(0, 0)
        self.entries = [entry for entry in self.entries if not goes_on or entry.position <= origin]
        start = Position(self.head.epoch + 1, origin.version)
        self.entries.append(Entry(start, "epoch", "", f'"{origin}"' if goes_on else "", f"e{start}", at(at_ms)))

    def mark(self, at_ms: float, lane: Any, words: str, *positions: str) -> None:
        self.marks.append(Mark(at(at_ms), lane, words, tuple(map(position, positions))))

    def poll(self, at_ms: float, where: str | None, words: str = "") -> Poll:
        shown = None if where is None else position(where)
        self.polls.append(Poll(at(at_ms), at(at_ms + 1), shown, words))
        return self.polls[-1]

    def read(self, at_ms: float, where: str, key: str, *, kind: Any = "read", **wrong: Any) -> Operation:
        """Read a key as the log has it at a position, but for what is ``wrong``."""
        entry = self.ledger.newest(key, position(where))
        known: dict[str, Any] = {"value": None, "version": 0}
        if entry is not None:
            known = {"value": text(entry.value.strip('"')), "version": entry.position.version}
        known |= {"key": key, "position": position(where), "node": "mine"} | wrong
        times = at(at_ms), at(at_ms + 1)
        self.operations.append(Operation(len(self.operations), 0, kind, "ok", *times, **known))
        return self.operations[-1]

    def die(self, at_ms: float, delivered: str, first: str | None, *pending: str) -> None:
        """Be killed, start again 100 ms later, and show everything at ``first``."""
        self.mark(at_ms + 5, "grader", "killed")  # once it has ended
        poll = self.poll(at_ms + 100, first, "" if first else "refused")
        reads = [self.read(at_ms + 101, first, key) for key in KEYS] if first else []
        waiting = frozenset(map(position, pending))
        self.deaths.append(Death(at(at_ms), position(delivered), waiting, at(at_ms + 90), poll, reads))

    def forget(self, key: str, **shown: Any) -> None:
        """Let the last death have shown something else of a key."""
        known: dict[str, Any] = {"value": None, "version": 0} | shown
        death = self.deaths[-1]
        found = next(read for read in death.reads if read.key == key)
        death.reads[death.reads.index(found)] = wrong = replace(found, **known)
        self.operations[self.operations.index(found)] = wrong

    def end(self, at_ms: float, where: str = "", **wrong: Any) -> None:
        """Show every key; ``wrong`` is of ``k1``."""
        where = where or str(self.head)
        self.poll(at_ms, where)
        for key in KEYS:
            self.read(at_ms + 1, where, key, kind="final", **(wrong if key == "k1" else {}))

    @property
    def record(self) -> Record:
        history = History(Plan("eventual"), self.operations)
        lists = self.polls, self.marks, self.deaths, self.settings
        return Record(self.level, "mine", history, self.ledger, *lists, **{"head": self.head, **self.more})

    @property
    def words(self) -> str:
        """The first counterexample, or which guarantees were not tested."""
        verdicts = judge(self.record)
        untested = [found.guarantee for found in verdicts if found.judgement == "not tested"]
        violated = [f"{found.guarantee}: {found.words}" for found in verdicts if found.judgement == "violated"]
        return violated[0] if violated else f"not tested: {', '.join(untested)}" if untested else ""


def correct(level: int) -> Run:
    """Eight writes, shown one after the other, and once more at the end."""
    run = Run(level)
    for number in range(1, 9):
        run.write(number * 100)
        run.poll(number * 100 + 50, f"1-{number}")
        for key in KEYS:
            run.read(number * 100 + 60, f"1-{number}", key)
    run.end(2000)
    return run
