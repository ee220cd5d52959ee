"""Blocks of the runbook on a lab without Docker, unchanged except for the ports and the way to redis-cli."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli import main
from lab.local.supervisor import Lab
from tests.e2e.promises import PROMISES
from tests.integration.conftest import running_lab
from tests.support import runbook
from tests.support.ports import base_port

ROOT = Path(__file__).parents[2]
REDIS_CLI = "docker compose exec -T lab14-redis redis-cli"
BLOCKS = runbook.blocks((ROOT / "RUNBOOK.md").read_text(encoding="utf-8"))
# The package of redis-server brings redis-cli.
pytestmark = [pytest.mark.needs("jq", "redis-server"), pytest.mark.xdist_group("runbook")]


@pytest.fixture(scope="module")
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("runbook")) as lab:
        yield lab


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that looks like a checkout; the lab that the blocks start in it is stopped in any case."""
    directory = tmp_path_factory.mktemp("checkout")
    (directory / ".venv").mkdir()
    (directory / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    yield directory
    CliRunner().invoke(main, ["down", "--data-dir", str(directory / ".lab" / "ha")])


HA_PORT = base_port()


@pytest.mark.parametrize("name", [block.name for block in BLOCKS if block.name.startswith("failover-")])
@pytest.mark.timeout(120)
def test_a_block_on_the_failover_has_its_expected_result(checkout: Path, name: str) -> None:
    (block,) = (block for block in BLOCKS if block.name == name)
    script = re.sub(r"\b91(0\d)\b", lambda port: str(HA_PORT + int(port[1])), block.script)
    done = runbook.run(script, checkout, timeout_seconds=80)
    print(done.output)
    PROMISES[name](done)


@pytest.mark.parametrize("name", ["redelivery-hold", "redelivery-crash", "redelivery-end"])
def test_a_block_has_its_expected_result_without_docker(own_lab: Lab, tmp_path: Path, name: str) -> None:
    (block,) = (block for block in BLOCKS if block.name == name)
    first_port = own_lab.options.base_port
    script = block.script.replace(REDIS_CLI, f"redis-cli --no-auth-warning -u {own_lab.redis_url}")
    script = re.sub(r"localhost:(800\d)", lambda port: f"localhost:{first_port + int(port[1]) - 8000}", script)
    PROMISES[name](runbook.run(script, tmp_path, timeout_seconds=50))
