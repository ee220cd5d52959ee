"""An open log on each kind of server."""

from typing import Any

import pytest

from broker.log import ReplicationLog


@pytest.fixture
def log(client: Any) -> ReplicationLog:
    found = ReplicationLog(client)
    found.open("open")
    return found
