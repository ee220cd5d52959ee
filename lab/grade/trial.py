"""One trial of a program: it starts with an empty store, things are done to it, and everything is recorded."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from broker.delay.models import Fixed
from broker.errors import LogError
from broker.position import START, Position
from broker.registry import Settings
from lab.checking.history import History, Plan
from lab.client import get
from lab.grade.load import Load
from lab.grade.program import Misbehaved, Program
from lab.grade.reader import Reader
from lab.grade.record import Death, Lane, Mark, Record, Setting
from lab.grade.surroundings import Surroundings
from lab.grade.tap import Tap
from lab.torture.judge import placed
from lab.torture.ledger import Follower

KEYS = (*(f"k{n}" for n in range(1, 13)), "a/b", "ü", "100%", "two words")
HALVES = (KEYS[::2], KEYS[1::2])
SETTLE_SECONDS = 5.0
_START_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
_STEP_SECONDS = 0.02
_RESTARTS_MAX = 5  # of a program that ends by itself
_RESTART_PAUSE_SECONDS = 0.2
_MARKS_MAX = 100_000
_PAGE = 1000


class Trial:
    """Methods raise ``LabError``, and ``Misbehaved`` if the program does something no consumer does."""

    def __init__(self, around: Surroundings, program: Program, directory: Path, level: int, seed: str) -> None:
        # Repeatable, not secret. Each thread has its own.
        self.random, load, self._reads = (Random(f"{seed}-{purpose}") for purpose in ("acts", "load", "reads"))  # noqa: S311
        self.around = around
        self.program = program
        self.tap: Tap = around.tap
        self.load = Load(around.lab.primary_url, KEYS, load)
        self._may_stop = False  # by exiting, which is otherwise a crash
        self._directory = directory
        self._level = level
        self._marks: list[Mark] = []
        self._deaths: list[Death] = []
        self._settings: list[Setting] = []
        self._halted = False
        self._is_killed = False
        self._restarts = 0
        self._peer_ms: dict[Position, float] = {}
        self._first = START

    @contextmanager
    def begun(self, delay_ms: float) -> Iterator[None]:
        """Empty everything, run the program meanwhile, and end it afterwards."""
        around = self.around
        began_us = around.now_us()
        self._first = around.empty(delay_ms)
        self._settings.append(Setting(began_us, around.now_us(), delay_ms))
        self._empty_store()
        self._reader = Reader(around.url, around.node, KEYS, around.now_us, self._reads)
        around.on_acknowledge = self._acknowledged
        around.position = lambda: self._reader.position
        with ExitStack() as stack:
            stack.callback(self._let_go)
            self._follower = stack.enter_context(Follower(lambda: around.lab.redis_url))
            stack.callback(self.program.close)
            self._start()
            self._reader.start()
            stack.callback(self._reader.stop)
            self.mark("grader", f"started, with a delay of {delay_ms:g} ms")
            if (poll := self._reader.first_since(0)).position is None:
                self._reader.check()
                raise Misbehaved(f"the program does not answer GET /version: {poll.words}")
            self.until(lambda: self._reader.position == self._first, _ANSWER_SECONDS)
            yield
            self._reader.stop()
            if self.program.ended is None:
                self.program.stop()

    def _empty_store(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700)

    def _let_go(self) -> None:
        self.around.on_acknowledge = lambda *_: None
        self.around.position = lambda: None
        self.tap.cut()

    # -- what is done to the program ----------------------------------------------------------------------------------
    def mark(self, lane: Lane, words: str, *positions: Position) -> None:
        if len(self._marks) < _MARKS_MAX:
            self._marks.append(Mark(self.around.now_us(), lane, words, positions))

    def die(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Kill the program, do something, start it again, and read every key."""
        self._is_killed = True
        self.program.kill()
        at_us = self.around.now_us()
        self.mark("grader", "killed")
        self.tap.cut()
        delivered, pending = self._insist(self.around.group) or (START, frozenset())
        meanwhile()
        restarted_us = self.around.now_us()
        self._start()
        self._is_killed = False
        self.mark("grader", "started again")
        if self._halted:
            return
        first = self._reader.first_since(restarted_us)
        reads = [] if first.position is None else self._reader.read_all(KEYS, kind="read")
        self._deaths.append(Death(at_us, delivered, pending, restarted_us, first, reads))

    @contextmanager
    def asleep(self) -> Iterator[None]:
        self.mark("grader", "suspended")
        self.program.suspend()
        try:
            yield
        finally:
            self.program.resume()
            self.mark("grader", "resumed")

    def set_delay(self, delay_ms: float) -> None:
        sent_us = self.around.now_us()
        self.around.registry.set_settings({self.around.node: Settings(Fixed(delay_ms))})
        self._settings.append(Setting(sent_us, self.around.now_us(), delay_ms))
        self.mark("grader", f"delay set to {delay_ms:g} ms")

    def trim(self) -> None:
        """Remove every entry from the log, once the ledger has it. From now on the program may stop honestly."""
        head = self.around.log.head().position
        self.until(lambda: self._follower.position >= head, _ANSWER_SECONDS)
        self._may_stop = True
        self.around.log.trim(head)
        self.mark("log", "trimmed", head)

    # -- waiting ------------------------------------------------------------------------------------------------------
    def wait(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait, and return whether the condition was met. Restarts a program that ends by itself."""
        deadline = time.monotonic() + seconds
        while not (met := condition()) and time.monotonic() < deadline and not self._halted:
            time.sleep(_STEP_SECONDS)
            self._watch()
        return met

    def settle(self) -> bool:
        """Wait until the program is at the head and nothing is pending, and return whether it is so."""
        return self.until(self._is_settled, SETTLE_SECONDS + self._settings[-1].delay_ms / 1000)

    def _is_settled(self) -> bool:
        try:
            group = self.around.group()
            return self._reader.position == self.around.log.head().position and group is not None and not group[1]
        except LogError:
            return False

    def _watch(self) -> None:
        self.program.check()
        self._reader.check()
        status = self.program.ended
        if self._reader.refuses or (self._may_stop and status and not self._is_killed):
            self._halt()
        elif status is not None and not self._is_killed:
            self._supervise(status)

    def _supervise(self, status: int) -> None:
        self._restarts += 1
        self.mark("replica", f"ended with status {status}")
        if self._restarts > _RESTARTS_MAX:
            raise Misbehaved(f"the program ended by itself {self._restarts} times, the last time with status {status}")
        time.sleep(_RESTART_PAUSE_SECONDS)
        try:
            self._start()
        except Misbehaved as error:
            raise Misbehaved(f"{error}; before this restart it ended with status {status}") from None

    def _start(self) -> None:
        try:
            self.program.start()
            self.program.wait_until_listening(self.around.port, _START_SECONDS)
        except Misbehaved:
            if not (self._may_stop and self.program.ended):
                raise
            self._halt()

    def _halt(self) -> None:
        self._halted = True
        self.mark("replica", "stopped")

    def _insist(self, ask: Callable[[], Any]) -> Any:
        """Ask until there is an answer."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                return ask()
            except LogError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_STEP_SECONDS)

    # -- what was seen ------------------------------------------------------------------------------------------------
    def _acknowledged(self, positions: list[Position], at_us: int) -> None:
        if len(self._marks) < _MARKS_MAX:
            self._marks.append(Mark(at_us, "replica", "acknowledged", tuple(positions)))

    def compare_with_peer(self) -> None:
        """Record how late a built-in replica was with the same entries."""
        url = next(iter(self.around.lab.replica_urls.values()))
        head = self.around.log.head().position
        get(f"{url}/version?min_position={head}&timeout_ms=10000", timeout_seconds=20)
        after = self._first
        while page := get(f"{url}/applied?after={after}&limit={_PAGE}")["applied"]:
            self._peer_ms |= {Position.parse(one["position"]): float(one["lateness_ms"]) for one in page}
            after = max(self._peer_ms)

    def record(self) -> Record:
        """Return everything that was recorded, with a last read of every key."""
        self.settle()
        group = self._insist(self.around.group)
        if not self._halted:
            self._reader.read_all(KEYS)
        self._reader.stop()
        ledger = self._follower.finish()
        plan = Plan("eventual", keys=len(KEYS))
        return Record(
            self._level,
            self.around.node,
            History(plan, placed(self._reader.operations, ledger)),
            ledger,
            self._reader.polls,
            sorted(self._marks),
            deaths=self._deaths,
            settings=self._settings,
            peer_lateness_ms=self._peer_ms,
            halted=self._halted,
            pending=None if group is None else tuple(sorted(group[1])),
            unanswered=self._reader.unanswered,
            head=self._insist(self.around.log.head).position,
        )
