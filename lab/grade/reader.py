"""Reads a graded program all the time: its position every 3 ms, and keys at random."""

import threading
import time
from collections.abc import Callable, Sequence
from random import Random

from broker.position import Position
from lab.checking.history import Kind, Operation
from lab.checking.workload import Recorder
from lab.grade.answers import ANSWER_SECONDS, NoAnswer, Nonsense, Program
from lab.grade.record import Poll

OPERATIONS_MAX = 200_000  # of a level; after that, keys are only read when everything is
_POLLS_APART_SECONDS = 0.003
_READS_APART_SECONDS = 0.01
_AFTER_FAILURE_SECONDS = 0.01
_READERS = 3
_ALONE = -1  # the session of reads of every key


class Reader:
    """Everything that a program shows at a level."""

    def __init__(
        self,
        url: str,
        node: str,
        keys: Sequence[str],
        now_us: Callable[[], int],
        random: Random,
        *,
        operations_max: int = OPERATIONS_MAX,
    ) -> None:
        """``now_us``: microseconds since 1970 by the log's clock. ``random``: used here only."""
        self._url, self._node, self._keys, self._now_us = url, node, keys, now_us
        self._recorder = Recorder(now_us, operations_max)
        self._nonsense: list[Nonsense] = []
        self._refused = {"position": False, "value": False}
        self._unanswered: dict[str, str] = {}
        self._over = threading.Event()
        self._polled = threading.Condition()
        self._polls: list[Poll] = []
        randoms = [Random(random.getrandbits(64)) for _ in range(_READERS)]  # noqa: S311 - repeatable, not secret
        steps = [self._poller(), *(self._reader(session, found) for session, found in enumerate(randoms))]
        self._threads = [threading.Thread(target=self._repeat, args=step, daemon=True) for step in steps]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop reading, and wait for the last answers."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def check(self) -> None:
        """Raise the first ``Nonsense`` that was read."""
        if self._nonsense:
            raise self._nonsense[0]

    @property
    def polls(self) -> list[Poll]:
        """The first and the last poll of each run of equal ones, in time order."""
        with self._polled:
            return list(self._polls)

    @property
    def operations(self) -> list[Operation]:
        return list(self._recorder.operations)

    @property
    def unanswered(self) -> dict[str, str]:
        """The keys whose last read had no answer, and why."""
        return dict(self._unanswered)

    @property
    def position(self) -> Position | None:
        """What the last poll showed."""
        with self._polled:
            return self._polls[-1].position if self._polls else None

    @property
    def refuses(self) -> bool:
        """Whether both reads were last answered with 503."""
        return all(self._refused.values())

    def first_since(self, since_us: int, timeout_seconds: float = ANSWER_SECONDS) -> Poll:
        """Return the first answer to a poll that was sent later; in time, otherwise a poll without one."""
        with self._polled:
            self._polled.wait_for(lambda: self._since(since_us), timeout_seconds)
            answered = self._since(since_us)
            if answered is not None:
                return answered
            words = self._polls[-1].words if self._polls else ""
        return Poll(since_us, self._now_us(), None, words or "no answer")

    def read_all(self, keys: Sequence[str], kind: Kind = "final") -> list[Operation]:
        """Read every key, each until there is an answer, for a bounded time in all. Raises ``Nonsense``."""
        program = Program(self._url)
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            found = []
            for key in keys:
                while not (read := self._read(program, key, kind, _ALONE)) and time.monotonic() < deadline:
                    time.sleep(_AFTER_FAILURE_SECONDS)
                found += [read] if read else []
            return found
        finally:
            program.close()

    def _since(self, since_us: int) -> Poll | None:
        later = None
        for poll in reversed(self._polls):
            if poll.invoked_us < since_us:
                break
            later = poll if poll.position is not None else later
        return later

    def _repeat(self, step: Callable[[Program], bool], pause_seconds: float) -> None:
        """Take steps until the end; ``step`` returns whether there was an answer."""
        program = Program(self._url)
        try:
            while not self._over.wait(pause_seconds):
                if not step(program):
                    self._over.wait(_AFTER_FAILURE_SECONDS)
        except Nonsense as nonsense:
            self._nonsense.append(nonsense)
        finally:
            program.close()

    def _poller(self) -> tuple[Callable[[Program], bool], float]:
        return self._poll, _POLLS_APART_SECONDS

    def _reader(self, session: int, random: Random) -> tuple[Callable[[Program], bool], float]:
        def step(program: Program) -> bool:
            return not self._recorder.full and bool(self._read(program, random.choice(self._keys), "read", session))

        return step, _READS_APART_SECONDS

    def _poll(self, program: Program) -> bool:
        position, words = None, ""
        invoked_us = self._now_us()
        try:
            position = program.position()
            self._refused["position"] = False
        except NoAnswer as failure:
            words = str(failure)
            self._refused["position"] = failure.refused
        self._add(Poll(invoked_us, self._now_us(), position, words))
        return position is not None

    def _add(self, poll: Poll) -> None:
        with self._polled:
            if [found[2:] for found in self._polls[-2:]] == [poll[2:]] * 2 or len(self._polls) >= OPERATIONS_MAX:
                self._polls.pop()
            self._polls.append(poll)
            self._polled.notify_all()

    def _read(self, program: Program, key: str, kind: Kind, session: int) -> Operation | None:
        """Record a read of a key, and return it if there was an answer."""
        invoked_us = self._now_us()
        try:
            position, version, value = program.value(key)
        except NoAnswer as failure:
            self._refused["value"] = failure.refused
            self._unanswered[key] = str(failure)
            self._recorder.add(session, kind, "fail", invoked_us, key=key, node=self._node)
            return None
        self._refused["value"] = False
        self._unanswered.pop(key, None)
        known = {"key": key, "value": value, "version": version, "position": position, "node": self._node}
        return self._recorder.add(session, kind, "ok", invoked_us, **known)
