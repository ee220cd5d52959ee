"""The audit compares the content with the primary's by digest: versions and positions do not show corruption."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from nodes.replica.parts import Parts

_logger = logging.getLogger("lab.audit")
EVERY_SECONDS = 5.0
_DUTY = 50  # the pause is this many times as long as a comparison took, which reads the whole content


class Audit:
    """Compares whenever the replica is at the primary's position, which happens once writes pause."""

    def __init__(self, parts: Parts, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.diverged = False
        self._parts = parts
        self._monotonic = monotonic

    def step(self) -> float:
        """Compare if possible; return the seconds to pause. Raises ``LogError`` or ``StoreError``."""
        head, store = self._parts.log.head(), self._parts.store
        if store.state().position != head.position:
            return EVERY_SECONDS
        started = self._monotonic()
        state, keys, digest = store.digest()
        took = self._monotonic() - started
        if state.position == head.position:
            diverged = (keys, digest) != (head.keys, head.digest)
            if diverged and not self.diverged:
                _logger.error("content at %s differs from the primary's: digest %s, not %s",
                              state.position, digest, head.digest)  # fmt: skip
            self.diverged = diverged
            self._parts.metrics.compared(diverged=diverged)
        return max(EVERY_SECONDS, _DUTY * took)
