"""Being told that a part of the bench is done."""

from __future__ import annotations

from typing import Protocol


class Step(Protocol):
    """Called after each part, with what that was."""

    def __call__(self, what: str, /) -> None:
        """One more is done."""
