"""The whole stack in containers.

Only where ``CI`` is set, and there it has to run: it takes the lab's own ports, and the runbooks prune Docker's unused
containers and build cache, which nobody wants of a test on their own machine.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.until import until

ROOT = Path(__file__).parents[2]
SERVICES = {"primary", "replica1", "replica2", "client", "worker", "redis", "prometheus", "grafana", "jaeger"}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Everything in this folder needs Docker and takes its time."""
    item.add_marker(pytest.mark.needs("docker"))
    item.add_marker(pytest.mark.timeout(900))


def docker(*arguments: str, check: bool = True) -> str:
    """Run docker in the checkout; what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def compose(*arguments: str, check: bool = True) -> str:
    """Run docker compose in the checkout; what it printed."""
    return docker("compose", *arguments, check=check)


def containers() -> list[dict[str, Any]]:
    """The stack's containers as ``docker compose ps`` knows them."""
    return [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]


def healthy() -> bool:
    """Whether every service of the stack runs and says that it is well."""
    found = {container["Service"]: container["Health"] for container in containers()}
    return found == {f"lab14-{name}": "healthy" for name in SERVICES}


def leftovers() -> str:
    """Containers, volumes and networks of the stack."""
    label = ("--filter", "label=com.docker.compose.project=lab14")
    return (
        docker("ps", "-aq", *label) + docker("volume", "ls", "-q", *label) + docker("network", "ls", "-q", *label)
    ).strip()


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine with Compose that the tests may use."""
    if "CI" not in os.environ:
        pytest.skip("takes ports 8000 to 8003 and prunes Docker's unused data; CI=1 says that this is fine here")


@pytest.fixture(scope="module")
def stack(engine: None) -> Iterator[None]:
    """The stack from nothing, all healthy; removed afterwards."""
    compose("down", "-v")
    try:
        compose("up", "--build", "-d")
        until(healthy, 15)
        yield
    finally:
        compose("down", "-v", check=False)
