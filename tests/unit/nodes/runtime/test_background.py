"""Background threads: an error is reported, and the thread continues."""

from __future__ import annotations

import threading

from broker.errors import LogUnreachable
from nodes.runtime.background import Background
from tests.support.until import until


def test_a_background_thread_continues_after_an_error_and_reports_it() -> None:
    steps: list[int] = []
    recovered = threading.Event()

    def step() -> None:
        steps.append(1)
        if len(steps) <= 2:
            raise LogUnreachable("gone")
        recovered.set()
        worker.pause(0.01)

    worker = Background("test", step)
    worker.start()
    assert until(lambda: worker.trouble) == "gone"
    assert recovered.wait(5)
    until(lambda: worker.trouble is None)
    worker.stop()
    assert worker.join(5)
