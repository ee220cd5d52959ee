"""The commands in the README and docs/, run unchanged against a lab, except for the ports."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.local.supervisor import Lab
from nodes.experiments.spec import ExperimentBody
from tests.integration.conftest import running_lab

ROOT = Path(__file__).parents[2]


def blocks(document: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


README, COMMANDS = blocks("README.md"), blocks("docs/commands.md")
pytestmark = [pytest.mark.needs("jq"), pytest.mark.xdist_group("readme"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Lab]]:
    """A directory that looks like a checkout after ``make up``."""
    directory = tmp_path_factory.mktemp("checkout")
    (directory / ".venv").mkdir()
    (directory / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    with running_lab(directory / ".lab") as lab:
        yield directory, lab


def run(here: tuple[Path, Lab], block: str) -> tuple[str, list[dict[str, Any]]]:
    """Run a block; return its output, and the JSON responses in it."""
    directory, lab = here
    base_port = lab.options.base_port
    script = re.sub(r"localhost:(800\d)", lambda port: f"localhost:{base_port + int(port[1]) - 8000}", block)
    line = ["bash", "-e", "-o", "pipefail", "-c", script]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, cwd=directory)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert not [answer for answer in answers if "detail" in answer]
    return done.stdout, answers


def test_the_documents_contain_commands() -> None:
    assert (len(README), len(COMMANDS)) == (7, 7)


def test_a_replica_lacks_the_write_at_first_and_responds_once_it_has_it(here: tuple[Path, Lab]) -> None:
    _, (written, stale) = run(here, README[0])
    assert stale["version"] < written["version"]
    _, (read,) = run(here, README[1])
    assert (read["version"], read["value"]) == (written["version"], "hello")


def test_a_window_is_measured_and_every_node_is_consistent_after_it(here: tuple[Path, Lab]) -> None:
    _, (waited, status) = run(here, README[2])
    assert waited["consistency_achieved"]
    assert waited["consistency_time_ms"] > 1400
    assert status["all_consistent"]


def test_a_token_makes_a_replica_wait(here: tuple[Path, Lab]) -> None:
    _, (session, bounded, quorum) = run(here, README[3])
    assert (session["value"], session["level"]) == (1, "session")
    assert session["waited_ms"] > 300
    assert (bounded["value"], bounded["level"]) == (1, "bounded")
    assert (quorum["value"], set(quorum["asked"])) == (1, {"lab14-replica1", "lab14-replica2"})


def test_a_slower_replica_is_visible_and_the_log_can_be_inspected(here: tuple[Path, Lab]) -> None:
    output, (changed,) = run(here, README[4])
    assert changed["delay_ms"] == 3000
    assert "lab14:log" in output
    assert output.count(" ok") == 6


def test_a_fault_is_injected_and_ended(here: tuple[Path, Lab]) -> None:
    output, (written, ended) = run(here, README[5])
    assert not written["immediate_reads"]["lab14-replica1"]["has_new_data"]
    assert "duration_ms=3000" in output
    assert ended["replicas"]["lab14-replica1"]["ended"] == ["pause"]


def test_a_distribution_is_set_and_its_staleness_is_predicted(here: tuple[Path, Lab]) -> None:
    output, _ = run(here, COMMANDS[0])
    assert re.search(r"^lab14-replica2 +exponential, mean 800 ms +0 ms +0 ms +arrival +0$", output, re.MULTILINE)
    assert "arrival order" in output
    assert "consistency window: p50" in output


def test_staleness_is_measured_and_predicted(here: tuple[Path, Lab]) -> None:
    output, _ = run(here, COMMANDS[1])
    assert re.search(r"^all 30 steps +2000 +RMSE +[\d.]+%$", output, re.MULTILINE)


def test_overlapping_quorums_are_measured_and_checked(here: tuple[Path, Lab]) -> None:
    output, _ = run(here, COMMANDS[2])
    assert re.search(r"^all \d+ steps +500 +RMSE +0.00%$", output, re.MULTILINE)
    assert re.search(r"^read_your_writes +yes +held ", output, re.MULTILINE)


def test_the_chaos_test_finds_no_violation_on_a_separate_lab(here: tuple[Path, Lab]) -> None:
    output, _ = run(here, COMMANDS[3])
    assert "Clean." in output


@pytest.mark.parametrize("block", [COMMANDS[4], *blocks("docs/simulation.md")], ids=["commands", "simulation"])
def test_simulated_labs_violate_nothing(here: tuple[Path, Lab], block: str) -> None:
    output, _ = run(here, block)
    assert output.count("Nothing was violated") == block.count("lab simulate")


def test_data_is_loaded(here: tuple[Path, Lab]) -> None:
    output, _ = run(here, COMMANDS[5])
    assert re.search(r"^5,000 items written in [\d.]+ s, [\d,]+ per second\.$", output, re.MULTILINE)


@pytest.mark.parametrize("block", [README[6], COMMANDS[6]], ids=["README", "commands"])
def test_the_lab_is_emptied(here: tuple[Path, Lab], block: str) -> None:
    _, (reset, changed) = run(here, block)
    assert (reset["status"], reset["version"]) == ("reset", 0)
    assert {found["status"] for found in reset["replicas"].values()} == {"emptied"}
    assert changed["delay_ms"] == 1500


def test_the_commands_in_the_document_on_experiments_run(here: tuple[Path, Lab]) -> None:
    from_terminal, by_curl = blocks("docs/experiments.md")
    output, _ = run(here, from_terminal)
    assert "consistency window" in output
    assert re.search(r"^\w+ +windows +finished", output, re.MULTILINE)
    _, (waited_ms,) = run(here, by_curl)
    assert waited_ms["strong"] < waited_ms["session"]


def test_a_recording_of_the_feed_is_replayed(here: tuple[Path, Lab]) -> None:
    (block,) = blocks("docs/console.md")
    output, _ = run(here, block)
    assert output.count("A recording; Ctrl-C exits.") > 2
    assert "lab14-replica2" in output


def test_the_commands_in_the_document_on_faults_run(here: tuple[Path, Lab]) -> None:
    block, _ = blocks("docs/faults.md")
    _, (begun, first, second, ended) = run(here, block)
    assert (begun["fault"], ended["ended"]) == ("pause", ["pause"])
    assert {first["replica_id"], second["replica_id"]} == {"lab14-replica1", "lab14-replica2"}


def test_an_entry_that_is_delivered_again_is_not_applied_again(here: tuple[Path, Lab]) -> None:
    output, (applied, crashed, acknowledged) = run(here, blocks("docs/faults.md")[1])
    assert crashed["fault"] == "crash"
    assert applied["acknowledged_position"] != applied["position"] == acknowledged["acknowledged_position"]
    samples = re.findall(r"^(ec_\w+_total)\{.*?(?:result=\"(\w+)\")?\} (\d+)\.0$", output, re.MULTILINE)
    counts = {result or name: int(count) for name, result, count in samples}
    # Entries of earlier sections that were still on their way are delivered again as well.
    assert counts["ec_redeliveries_total"] == counts["duplicate"] + counts["applied"]
    assert counts["duplicate"] >= 1
    assert "lab14-replica2: delay 1500 ms, ack 0 ms." in output


def test_the_sweep_in_the_document_on_experiments_is_valid() -> None:
    (found,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/experiments.md").read_text(), re.MULTILINE | re.DOTALL)
    assert ExperimentBody.model_validate(yaml.safe_load(found)).root.kind == "sweep"
