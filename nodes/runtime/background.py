"""A background thread of a node: one step after another until it is told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from broker.errors import LogError
from nodes.runtime import cores
from nodes.runtime.store import StoreError

_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


class Background:
    """Runs ``step`` over and over; after an error it waits, up to a second, and goes on.

    ``trouble`` is the sentence of the last error, or ``None`` since the last step that ended well.
    """

    def __init__(self, name: str, step: Callable[[], None]) -> None:
        self.trouble: str | None = None
        self._step = step
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._logger = logging.getLogger(f"lab.{name}")

    @property
    def stopping(self) -> bool:
        """Whether the worker has been told to stop."""
        return self._stop.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end after its current step."""
        self._stop.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread's end; whether it came."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the moment the worker is told to stop."""
        self._stop.wait(seconds)

    def _run(self) -> None:
        cores.use_any()
        failures = 0
        while not self._stop.is_set():
            try:
                self._step()
            except Exception as error:  # a thread that dies silently would be worse than any error
                if self.trouble is None:
                    self._logger.warning("%s", error, exc_info=not isinstance(error, LogError | StoreError))
                self.trouble = str(error) or type(error).__name__
                self.pause(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
                failures += 1
            else:
                if self.trouble is not None:
                    self._logger.warning("recovered")
                self.trouble = None
                failures = 0
