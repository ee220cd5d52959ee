"""An acknowledgement to wait for, at which a proxy holds or cuts the connection."""

import threading
from collections.abc import Callable
from typing import Literal


class Trap:
    """Goes off at the acknowledgement by which ``count`` entries have been acknowledged since it was set."""

    def __init__(self, kind: Literal["hold", "cut"], count: int, release: Callable[["Trap"], None]) -> None:
        self.kind = kind
        self.left = count
        self.reached = threading.Event()
        self._release = release

    def wait(self, timeout_seconds: float) -> bool:
        """Return whether it has gone off; the acknowledgement that is held was then sent to the log server."""
        return self.reached.wait(timeout_seconds)

    def release(self) -> None:
        """Let replies through again, or take the trap away if it has not gone off."""
        self._release(self)
