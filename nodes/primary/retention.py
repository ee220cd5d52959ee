"""How much of the log is kept: bounds in entries and in bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from broker.history import Memory
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Member
from nodes.runtime.config import PrimaryConfig

_SERVER_SHARE = 0.8  # of the log server's memory; the rest is for what arrives until the next look


class Retention:
    """Trims the log. Methods raise ``broker.errors.LogError``. Thread-safe."""

    def __init__(self, log: ReplicationLog, config: PrimaryConfig) -> None:
        self._log = log
        self._config = config
        self._lock = threading.Lock()
        self.memory: Memory | None = None  # when last looked at

    def trim(self, live: Iterable[Member]) -> None:
        """Drop what every live replica has applied, but not the newest entries; and all beyond the hard bounds."""
        head = self._log.head().position
        slowest = min((member.position for member in live), default=START)
        applied = slowest.version if slowest.epoch == head.epoch else 0
        through = max(min(applied, head.version - self._config.log_keep), head.version - self._config.log_max)
        if through > 0:
            self._log.trim(Position(head.epoch, through))
        self.shrink()

    def shrink(self) -> None:
        """Drop the oldest entries beyond the bound in bytes."""
        with self._lock:
            self.memory = self._log.shrink(self.bound_bytes)

    def bound_bytes(self, memory: Memory) -> int:
        """How many bytes the log may take: as configured, and no more than the rest of the log server leaves."""
        if memory.max_bytes == 0:
            return self._config.log_max_bytes
        others_bytes = memory.used_bytes - memory.log_bytes
        return min(self._config.log_max_bytes, max(0, round(_SERVER_SHARE * memory.max_bytes) - others_bytes))
