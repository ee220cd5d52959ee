"""The full stack in containers.

Runs only if ``CI`` is set, because it uses the lab's default ports and the runbooks prune Docker's stopped containers
and build cache.
"""

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
    item.add_marker(pytest.mark.needs("docker"))
    item.add_marker(pytest.mark.timeout(900))


def docker(*arguments: str, check: bool = True) -> str:
    """Run docker in the checkout and return its output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def compose(*arguments: str, check: bool = True) -> str:
    return docker("compose", *arguments, check=check)


def containers() -> list[dict[str, Any]]:
    """Return the stack's containers as listed by ``docker compose ps``."""
    return [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]


def healthy() -> bool:
    """Return whether every service runs and is healthy."""
    found = {container["Service"]: container["Health"] for container in containers()}
    return found == {f"lab14-{name}": "healthy" for name in SERVICES}


def leftovers() -> str:
    """Return the IDs of the stack's remaining containers, volumes and networks."""
    label = ("--filter", "label=com.docker.compose.project=lab14")
    return (
        docker("ps", "-aq", *label) + docker("volume", "ls", "-q", *label) + docker("network", "ls", "-q", *label)
    ).strip()


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that the tests can use."""
    if "CI" not in os.environ:
        pytest.skip("uses ports 8000 to 8003 and prunes Docker's unused data; set CI=1 to allow this")


@pytest.fixture(scope="module")
def stack(engine: None) -> Iterator[None]:
    """A newly started, healthy stack, removed afterwards."""
    compose("down", "-v")
    try:
        compose("up", "--build", "-d")
        until(healthy, 15)
        yield
    finally:
        compose("down", "-v", check=False)
