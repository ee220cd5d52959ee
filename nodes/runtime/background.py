"""Background threads of a node, and the processor cores that its threads run on."""

import logging
import os
import sys
import threading
from collections.abc import Callable

from broker.errors import LogError
from nodes.runtime.store import StoreError

_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
_CORES: set[int] = set()


class Background:
    """Runs ``step`` until stopped, with pauses after errors. ``trouble``: the last error, ``None`` after a success.

    ``expected``: errors that are logged without a stack trace, besides those of the log server and of stores.
    """

    def __init__(self, name: str, step: Callable[[], None], *, expected: tuple[type[Exception], ...] = ()) -> None:
        self.trouble: str | None = None
        self._step = step
        self._expected: tuple[type[Exception], ...] = (LogError, StoreError, *expected)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._logger = logging.getLogger(f"lab.{name}")

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step."""
        self._stop.set()

    def pause(self, seconds: float) -> None:
        """Wait, at most until the thread is stopped."""
        self._stop.wait(seconds)

    def _run(self) -> None:
        use_any_core()
        failures = 0
        while not self._stop.is_set():
            try:
                self._step()
            except Exception as error:  # a thread that dies silently would be worse than any error
                if self.trouble is None:
                    self._logger.warning("%s", error, exc_info=not isinstance(error, self._expected))
                self.trouble = str(error) or type(error).__name__
                self.pause(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
                failures += 1
            else:
                if self.trouble is not None:
                    self._logger.warning("recovered")
                self.trouble = None
                failures = 0


def share_one_core(number: int) -> None:
    """Keep this process, and threads that it will start, on one core (Linux): the ``number``-th, modulo their count.

    Only one thread of an interpreter runs at a time: a second core gains nothing, and switching cores is expensive.
    """
    if sys.platform == "linux":
        _CORES.update(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {sorted(_CORES)[number % len(_CORES)]})


def use_any_core() -> None:
    """Let the calling thread run on any core, so that it runs on time regardless of the others."""
    if sys.platform == "linux" and _CORES:
        os.sched_setaffinity(0, _CORES)
