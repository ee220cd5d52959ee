"""What happened in a run: the newest events, for the picture of a failure."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.report.spacetime import Event
from lab.simulation.scheduler import Scheduler

_KEPT = 400


class Trace(logging.Handler):
    """``add`` events; what nodes log is added while ``following``."""

    def __init__(self, scheduler: Scheduler, directory: Path = Path()) -> None:
        """``directory``: of the nodes' files, which has another name in each run."""
        self._scheduler, self._directory = scheduler, f"{directory}/"
        self.events: deque[Event] = deque(maxlen=_KEPT)
        super().__init__(logging.WARNING)

    def add(self, lane: str, words: str, to: str | None = None) -> Event:
        event = Event(self._scheduler.now_ns // 1000, lane, words, to)
        self.events.append(event)
        return event

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of a node's log."""
        words = record.getMessage().replace(self._directory, "")
        self.add(self._scheduler.process.name, f"{record.name.removeprefix('lab.')}: {words}")

    @contextmanager
    def following(self) -> Iterator[None]:
        root = logging.getLogger("lab")
        handlers, propagate, level = root.handlers, root.propagate, root.level
        root.handlers, root.propagate = [self], False
        root.setLevel(logging.WARNING)
        try:
            yield
        finally:
            root.handlers, root.propagate = handlers, propagate
            root.setLevel(level)
