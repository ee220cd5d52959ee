"""A replica in which a test starts faults."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.replica import Broken


@pytest.fixture
def broken(fake: Any, tmp_path: Path) -> Iterator[Broken]:
    """A replica that has caught up."""
    found = Broken(fake, tmp_path / "store")
    found.bench.catch_up()
    yield found
    found.faults.stop()
    found.bench.close()
