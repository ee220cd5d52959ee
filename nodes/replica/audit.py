"""Comparing the content with the primary's: what versions and positions cannot show, a digest does."""

from __future__ import annotations

import logging
from collections.abc import Callable

from broker.log import ReplicationLog
from nodes.replica.metrics import ReplicaMetrics
from nodes.replica.store import ReplicaStore

_logger = logging.getLogger("lab.audit")
EVERY_SECONDS = 5.0
_DUTY = 50


class Audit:
    """Compares whenever the replica happens to be where the primary is, which it is once writes pause.

    The digest is computed from the whole stored content, so that it costs the more the more there is: a comparison that
    took long is followed by a pause fifty times as long.
    """

    def __init__(
        self, log: ReplicationLog, store: ReplicaStore, metrics: ReplicaMetrics, monotonic: Callable[[], float]
    ) -> None:
        self.diverged = False
        self._log = log
        self._store = store
        self._metrics = metrics
        self._monotonic = monotonic

    def step(self) -> float:
        """Compare where that is possible; how many seconds to pause. Raises ``LogError`` or ``StoreError``."""
        head = self._log.head()
        if self._store.state().position != head.position:
            return EVERY_SECONDS
        began = self._monotonic()
        state, keys, digest = self._store.digest()
        took = self._monotonic() - began
        if state.position == head.position:
            diverged = (keys, digest) != (head.keys, head.digest)
            if diverged and not self.diverged:
                _logger.error("the content at %s is not the primary's: digest %s, not %s",
                              state.position, digest, head.digest)  # fmt: skip
            self.diverged = diverged
            self._metrics.compared(diverged=diverged)
        return max(EVERY_SECONDS, _DUTY * took)
