"""The reader of one replica."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab.probe.brackets import Behind, Brackets
from lab.probe.observer import Observed
from lab.probe.steps import Ended
from lab.probe.target import NotNow, Target

if TYPE_CHECKING:  # it has the readers
    from lab.probe.instrument import Shared

_GAP_SECONDS_MIN, _GAP_SECONDS_MAX = 0.001, 5.0
_GAP_SHARE = 0.05  # of the age of the oldest unseen write: short lags get narrow brackets, long ones few reads
_UNKNOWN_SECONDS = 10.0  # without a successful read, after which it is not known how far a replica is behind


class _Budget:
    """Tokens for requests that read: an average rate, of which a tenth of a second can be saved up."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second, self._saved_max, self._at = per_second, max(1.0, per_second / 10), now
        self._tokens = self._saved_max

    def ready(self) -> float:
        """Return the moment of the next token."""
        return self._at + max(0.0, 1 - self._tokens) / self._per_second

    def take(self, now: float, count: int) -> None:
        self._tokens = min(self._saved_max, self._tokens + (now - self._at) * self._per_second) - count
        self._at = now


class Reader:
    """Reads while a write is unseen, the more often the younger it is."""

    def __init__(self, target: Target, shared: Shared, brackets: Brackets, operations: Observed) -> None:
        self._target, self._shared, self._brackets, self.operations = target, shared, brackets, operations
        self._budget = _Budget(shared.limits.reads_per_second, shared.started)
        self._last_sent = -math.inf
        self._last_received: float | None = None

    def step(self) -> float | None:
        now = self._shared.now()
        with self._shared.changed:
            self._brackets.give_up(now - self._shared.limits.give_up_seconds)
            due, keys = self._due(), self._brackets.keys
            if due is None or now < due:
                return due
        self._read(keys)
        with self._shared.changed:
            return self._due()

    def _due(self) -> float | None:
        oldest = self._brackets.oldest_sent
        if oldest is None:
            return None if self._shared.all_written else math.inf
        gap = min(_GAP_SECONDS_MAX, max(_GAP_SECONDS_MIN, _GAP_SHARE * (self._last_sent - oldest)))
        return max(max(self._last_sent, oldest) + gap, self._budget.ready())

    def _read(self, keys: Sequence[str]) -> None:
        sent = self._last_sent = self._shared.now()
        try:
            shown = self._target.read(keys)
        except NotNow as error:
            self._budget.take(sent, 1)
            self.operations.failed(error)
            return
        received = self._shared.now()
        self._budget.take(sent, shown.requests)
        self.operations.succeeded(received - sent)
        self.operations.require_role(is_replica=shown.is_replica)
        if max(shown.numbers.values(), default=0) >= self._shared.next_number:
            raise Ended(f"{self._target.name} shows another probe's writes; only one can run on a store")
        with self._shared.changed:
            self._last_received = received
            self._brackets.read(sent, received, shown.numbers)

    def behind(self) -> Behind | None:
        """Return how far the replica is behind; ``None`` if no read succeeds, or none has yet."""
        with self._shared.changed:
            found, received = self._brackets.behind, self._last_received
            if received is None or found.since is None:
                return None if received is None else found
            is_known = self._shared.now() - max(received, found.since) <= _UNKNOWN_SECONDS
            return found if is_known else None
