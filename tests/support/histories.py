"""Generated correct histories: a log, replicas that follow it, and sessions that read at a level."""

from bisect import bisect_right
from random import Random
from typing import Any

from broker.position import Position
from lab.checking.history import History, Kind, Operation, Outcome, Plan
from nodes.http.level import Level

PRIMARY = "lab14-primary"
OUTCOMES: tuple[Outcome, ...] = ("ok", "unknown", "fail")


class World:
    """A primary and two replicas that follow at random, with resets in between; operations never overlap."""

    def __init__(
        self,
        seed: int,
        level: Level = "session",
        *,
        length: int = 60,
        keys: int = 3,
        sessions: int = 4,
        calm: bool = False,
    ) -> None:
        """``calm``: every write succeeds, and there are no resets."""
        self._calm = calm
        self._random = Random(seed)
        self._level = level
        self._keys = [f"k{number}" for number in range(keys)]
        self._sessions = sessions
        self._now_us = 0
        self._head = Position(1, 0)
        self._log: dict[str, list[tuple[Position, str]]] = {key: [] for key in self._keys}
        self._applied = {f"lab14-replica{number}": Position(1, 0) for number in (1, 2)}
        self._tokens = [Position(0, 0)] * sessions
        self.operations: list[Operation] = []
        for _ in range(length):
            self._step()
        self._end()

    def history(self) -> History:
        """Return the history. Every bound of its plan holds."""
        return History(Plan(self._level), self.operations)

    def _step(self) -> None:
        dice = self._random.random()
        if dice < 0.03 and not self._calm:
            self._head = Position(self._head.epoch + 1, 0)
            self._log = {key: [] for key in self._keys}
            self._applied = dict.fromkeys(self._applied, self._head)
        elif dice < 0.4:
            self._write()
        elif dice < 0.6:
            self._apply(self._random.choice(sorted(self._applied)), self._random.randint(1, 5))
        else:
            self._read()

    def _write(self) -> None:
        session, key = self._random.randrange(self._sessions), self._random.choice(self._keys)
        invoked_us = self._tick()
        outcome = self._random.choices(OUTCOMES, [20, 0 if self._calm else 1, 0 if self._calm else 1])[0]
        value = f"v{len(self.operations)}"
        happened = outcome == "ok" or (outcome == "unknown" and self._random.random() < 0.5)
        if happened:
            self._head = Position(self._head.epoch, self._head.version + 1)
            self._log[key].append((self._head, value))
        position = self._head if outcome == "ok" else None
        if position is not None:
            self._tokens[session] = max(self._tokens[session], position)
        version = position.version if position else 0
        self._add(session, "write", outcome, invoked_us, key=key, value=value, position=position, version=version)

    def _read(self) -> None:
        session, key = self._random.randrange(self._sessions), self._random.choice(self._keys)
        node = PRIMARY if self._level == "strong" else self._random.choice(sorted(self._applied))
        if self._level == "session":
            self._catch_up(node, self._tokens[session])
        invoked_us = self._tick()
        self._shown(session, "read", invoked_us, key, node)

    def _shown(self, session: int, kind: Kind, invoked_us: int, key: str, node: str) -> None:
        at = self._head if node == PRIMARY else self._applied[node]
        found = bisect_right(self._log[key], at, key=lambda entry: entry[0])
        position, value = self._log[key][found - 1] if found else (Position(at.epoch, 0), None)
        self._tokens[session] = max(self._tokens[session], at)
        self._add(
            session, kind, "ok", invoked_us, key=key, value=value, position=at, version=position.version, node=node
        )

    def _apply(self, node: str, count: int) -> None:
        at = self._applied[node]
        self._applied[node] = Position(at.epoch, min(self._head.version, at.version + count))

    def _catch_up(self, node: str, target: Position) -> None:
        while node != PRIMARY and self._applied[node] < target:
            self._apply(node, 1)

    def _end(self) -> None:
        for node in self._applied:
            self._catch_up(node, self._head)
        for node in (PRIMARY, *self._applied):
            at = self._tick()
            operation = Operation(
                len(self.operations), -1, "digest", "ok", at, at, position=self._head, node=node, digest="d"
            )
            self.operations.append(operation)
        for key in self._keys:
            self._shown(0, "final", self._tick(), key, PRIMARY)

    def _tick(self) -> int:
        self._now_us += self._random.randint(1, 50_000)
        return self._now_us

    def _add(self, session: int, kind: Kind, outcome: Outcome, invoked_us: int, **found: Any) -> None:
        returned_us = self._tick()
        self.operations.append(
            Operation(len(self.operations), session, kind, outcome, invoked_us, returned_us, **found)
        )
