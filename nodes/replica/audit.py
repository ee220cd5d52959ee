"""The audit compares the content with the primary's by digest: versions and positions do not show corruption."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nodes.replica.parts import Parts

_logger = logging.getLogger("lab.audit")
EVERY_SECONDS = 5.0
_DUTY = 50  # the pause is this many times as long as a comparison took, which reads the whole content


@dataclass
class Audit:
    """Compares whenever the replica is at the primary's position, which happens once writes pause."""

    parts: Parts
    monotonic: Callable[[], float] = time.monotonic
    diverged: bool = field(default=False, init=False)

    def step(self) -> float:
        """Compare if possible; return the seconds to pause. Raises ``LogError`` or ``StoreError``."""
        head, store = self.parts.log.head(), self.parts.store
        if store.state().position != head.position:
            return EVERY_SECONDS
        started = self.monotonic()
        state, keys, digest = store.digest()
        took = self.monotonic() - started
        if state.position == head.position:
            diverged = (keys, digest) != (head.keys, head.digest)
            if diverged and not self.diverged:
                _logger.error("content at %s differs from the primary's: digest %s, not %s",
                              state.position, digest, head.digest)  # fmt: skip
            self.diverged = diverged
            self.parts.metrics.compared(diverged=diverged)
        return max(EVERY_SECONDS, _DUTY * took)
