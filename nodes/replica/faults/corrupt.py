"""A stored value is another one, and nobody was told."""

from __future__ import annotations

from typing import ClassVar, Literal

from nodes.http.api import Key
from nodes.http.problem import Problem
from nodes.replica.faults.fault import Fault, Parts


class Corrupt(Fault):
    """One value is changed in the store, its version and position are not: only a digest can show it.

    ``key``: whose value; any, where it is left out. It is over at once and leaves its damage, until the key is written
    again or the replica takes a snapshot.
    """

    momentary: ClassVar[bool] = True
    fault: Literal["corrupt"]
    key: Key | None = None

    def begin(self, parts: Parts) -> None:
        """See ``Fault``. Raises ``Problem`` 409 where there is nothing to corrupt."""
        if not parts.store.corrupt(self.key):
            detail = (
                "The replica holds no such key." if self.key else "The replica holds nothing that could be corrupted."
            )
            raise Problem(409, "nothing-to-corrupt", "Nothing to corrupt", detail)
