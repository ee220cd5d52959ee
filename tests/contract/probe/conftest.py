"""A busy machine."""

import pytest

from lab.probe import instrument


@pytest.fixture(autouse=True)
def _on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other tests slow down the writes, which would end a run."""
    monkeypatch.setattr(instrument, "_SLOWER_SECONDS", 10.0)
