"""Blocks of the runbook on a lab without Docker, unchanged except for the ports and the way to redis-cli."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.local.supervisor import Lab
from tests.e2e.promises import PROMISES
from tests.integration.conftest import running_lab
from tests.support import runbook

ROOT = Path(__file__).parents[2]
REDIS_CLI = "docker compose exec -T lab14-redis redis-cli"
BLOCKS = runbook.blocks((ROOT / "RUNBOOK.md").read_text(encoding="utf-8"))
# The package of redis-server brings redis-cli.
pytestmark = [pytest.mark.needs("jq", "redis-server"), pytest.mark.xdist_group("runbook")]


@pytest.fixture(scope="module")
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("runbook")) as lab:
        yield lab


@pytest.mark.parametrize("name", ["redelivery-hold", "redelivery-crash", "redelivery-end"])
def test_a_block_has_its_expected_result_without_docker(own_lab: Lab, tmp_path: Path, name: str) -> None:
    (block,) = (block for block in BLOCKS if block.name == name)
    first_port = own_lab.options.base_port
    script = block.script.replace(REDIS_CLI, f"redis-cli --no-auth-warning -u {own_lab.redis_url}")
    script = re.sub(r"localhost:(800\d)", lambda port: f"localhost:{first_port + int(port[1]) - 8000}", script)
    PROMISES[name](runbook.run(script, tmp_path, timeout_seconds=50))
