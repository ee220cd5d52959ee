"""Being told what the bench is at."""

from __future__ import annotations

from typing import Protocol


class Step(Protocol):
    """Called every few seconds at most, with what is being measured."""

    def __call__(self, what: str, /) -> None:
        """Show this."""
