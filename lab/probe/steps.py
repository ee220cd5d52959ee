"""The steps of a run: each returns when the next one is due, so that a test can run them in simulated time."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from lab.probe.brackets import KEPT
from lab.probe.target import NotNow, Target, TargetError

_ERRORS_SHARE_MAX = 0.1
_ERRORS_OF = 20  # operations, before their share of errors means anything
_SHOW_SECONDS = 0.1


class Step(Protocol):
    def step(self) -> float | None:
        """Do what is due. Return the moment of the next step, infinity for the next change, or ``None`` at the end."""


class Ended(Exception):
    """Raised with the sentence that says why the run ends."""


class Course:
    """The course of a run, which its steps share. ``changed`` guards what they share, and is notified of changes.

    ``changes`` counts the notifications, so that a thread does not wait for one that it has just missed.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.changed = threading.Condition()
        self.changes = 0
        self.ended: str | None = None  # the sentence, or empty; None while the run goes on
        self.failure: Exception | None = None

    def notify(self) -> None:
        with self.changed:
            self.changes += 1
            self.changed.notify_all()

    def end(self, sentence: str = "") -> None:
        with self.changed:
            if self.ended is None:
                self.ended = sentence
            self.notify()


class Operations:
    """Counts a node's operations, and ends the run when too many failed, or the node's role changes."""

    def __init__(self, name: str, kind: str, errors_share_max: float = _ERRORS_SHARE_MAX) -> None:
        self._name, self._kind, self._errors_share_max = name, kind, errors_share_max
        self.round_trip_seconds: deque[float] = deque(maxlen=KEPT)
        self.count = self.errors = 0
        self.was_replica: bool | None = None  # at the first read

    def succeeded(self, seconds: float) -> None:
        self.count += 1
        self.round_trip_seconds.append(seconds)

    def failed(self, error: NotNow) -> None:
        self.count += 1
        self.errors += 1
        if self.count >= _ERRORS_OF and self.errors > self._errors_share_max * self.count:
            failed = f"{self.errors} of {self.count} {self._kind} failed"
            raise Ended(f"{self._name}: {failed}, the last one with: {error}")

    def require_role(self, *, is_replica: bool) -> None:
        if self.was_replica is None:
            self.was_replica = is_replica
        if is_replica != self.was_replica:
            role = "replica" if is_replica else "primary"
            kept = "" if is_replica else "; if it is a store of its own now, clean it up with --primary and --remove"
            raise Ended(f"{self._name} became a {role} during the run{kept}")


def first_number() -> int:
    """Return a number above those of every earlier run, so that what one has left behind is not taken for a write."""
    return time.time_ns() // 1_000_000


def created(primary: Target, measure: Callable[[], None]) -> str:
    """Measure between creating what that needs and removing it; return why it could not be removed, if so.

    Raises ``TargetError`` if nothing was created.
    """
    primary.prepare()
    not_removed = ""
    try:
        measure()
    finally:
        try:
            primary.remove()
        except (TargetError, NotNow) as error:
            not_removed = str(error)
    return not_removed


def run_all(steps: Sequence[Step], course: Course, stop: threading.Event, on_step: Callable[[], None]) -> None:
    """Run each of the steps in a thread until all have ended, the course has, or ``stop`` is set."""
    threads = [threading.Thread(target=_repeat, args=(one, course), daemon=True) for one in steps]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_SHOW_SECONDS)
                on_step()
                if stop.is_set():
                    course.end("it was interrupted")
    finally:
        course.end()
        for thread in threads:  # each operation has a timeout
            thread.join()
    if course.failure is not None:
        raise course.failure


def _repeat(one: Step, course: Course) -> None:
    while course.ended is None:
        changes = course.changes
        if (due := perform(one, course)) is None:
            return
        with course.changed:
            wait_seconds = due - course.now()
            if wait_seconds > 0 and course.changes == changes:
                course.changed.wait(None if math.isinf(due) else wait_seconds)


def perform(one: Step, course: Course) -> float | None:
    """Perform one step; an error of the node ends the run."""
    try:
        return one.step()
    except (Ended, TargetError) as error:
        course.end(str(error))
    except Exception as error:  # noqa: BLE001 - run raises it
        course.failure = error
        course.end()
    return None
