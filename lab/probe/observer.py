"""What happens in a run, for an exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from lab.probe.brackets import Bracket, Write
from lab.probe.steps import Ended, Operations
from lab.probe.target import NotNow, Target, TargetError

if TYPE_CHECKING:  # it has an observer
    from lab.probe.instrument import Instrument


class Observer:
    """Is called by the threads of a run with what happens."""

    def started(self, instrument: Instrument) -> None: ...

    def wrote(self, write: Write) -> None: ...

    def found(self, replica: int, bracket: Bracket) -> None:
        """Take the bracket of a write that was acknowledged, and on this replica seen or given up."""

    def failed(self, node: Target, error: NotNow) -> None: ...

    def succeeded(self, node: Target) -> None: ...


class Observed(Operations):
    """Also ends the run if the node belongs to another store after its connection was lost."""

    def __init__(
        self, node: Target, kind: str, identity: str | None, errors_share_max: float, observer: Observer
    ) -> None:
        super().__init__(node.name, kind, errors_share_max)
        self._node, self._identity, self._observer = node, identity, observer
        self._is_checked = True

    @override
    def succeeded(self, seconds: float) -> None:
        super().succeeded(seconds)
        self._observer.succeeded(self._node)
        if not self._is_checked:
            self._require_same_store()

    @override
    def failed(self, error: NotNow) -> None:
        self._is_checked = False
        self._observer.failed(self._node, error)
        super().failed(error)

    def _require_same_store(self) -> None:
        try:
            found = self._node.settings().identity
        except (NotNow, TargetError):
            return  # checked after the next operation
        self._is_checked = True
        if None not in {found, self._identity} and found != self._identity:
            raise Ended(f"{self._node.name} belongs to another store since its connection was lost")
