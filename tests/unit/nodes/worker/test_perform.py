"""Performing an experiment while the log server is away."""

from __future__ import annotations

import threading
from typing import Any, cast

from broker.errors import LogUnreachable
from nodes.worker.perform import Performance
from tests.support.experiments import experiment

ATTEMPTS_MAX = 1000


class Done(threading.Event):
    """Set after three waits or too many attempts, and nothing waits for it in real time."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0
        self.waits: list[float | None] = []

    def refuse(self, *_: object) -> None:
        """Fail as a queue does whose log server refuses connections."""
        self.attempts += 1
        if self.attempts >= ATTEMPTS_MAX:
            self.set()
        raise LogUnreachable("refused")

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) == 3:
            self.set()
        return self.is_set()


def test_waiting_for_a_stop_pauses_while_the_log_server_refuses_connections() -> None:
    done = Done()
    nothing, queue = cast("Any", None), cast("Any", type("Queue", (), {"wait_for_stop": done.refuse}))
    performance = Performance(queue, nothing, nothing, cast("Any", experiment("windows", None)))
    performance._done = done
    performance._listen()
    assert (done.attempts, done.waits) == (3, [1, 1, 1])
