"""Every node conforms to its ``/openapi.json``: all checks of schemathesis, on requests and sequences of them."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import DELAYS_MS, HERE, running_lab, set_delays

CONFIG = HERE.parent / "support" / "openapi" / "schemathesis.toml"
SECONDS = 20


@pytest.fixture(scope="module")
def battered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A separate lab, because the tests disturb it."""
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        set_delays(lab, *DELAYS_MS)
        yield lab


@pytest.mark.needs("schemathesis")
@pytest.mark.xdist_group("schemathesis")
@pytest.mark.timeout(150)
@pytest.mark.parametrize("node", ["primary", "replica", "client", "worker"])
def test_schemathesis_finds_no_deviation_from_openapi(battered: Lab, node: str) -> None:
    urls = {
        "primary": battered.primary_url,
        "replica": next(iter(battered.replica_urls.values())),
        "client": battered.client_url,
        "worker": battered.worker_url,
    }
    line = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    done = subprocess.run(
        [*line, "--max-time", str(SECONDS), f"{urls[node]}/openapi.json"],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=140,
    )
    print(done.stdout)
    assert done.returncode == 0
    for log in (battered.data_dir / "logs").glob("*.log"):
        assert "Traceback" not in log.read_text(), log.name
