"""Claims of the documents, compared with the code."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from broker.address import parse
from lab.checking.promises import CHECKERS, PROMISES
from nodes.replica.faults import FAULTS
from nodes.runtime.config import VARIABLES, load

ROOT = Path(__file__).parents[2]
GENERATOR = runpy.run_path(str(ROOT / "docs/generate.py"))
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.parts[3:]))
PYTHON = [path for package in ("broker", "nodes", "lab") for path in (ROOT / package).rglob("*.py")]


def code() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in PYTHON)


@pytest.mark.parametrize("name", GENERATOR["GENERATED"])
def test_the_generated_part_of_a_document_is_up_to_date(name: str) -> None:
    assert (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") == GENERATOR["rewritten"](name)


def test_every_variable_is_in_the_table() -> None:
    read = set(re.findall(r'"((?:LAB|OTEL)_[A-Z_]+)"', (ROOT / "nodes/runtime/config.py").read_text(encoding="utf-8")))
    assert read == {variable.name for variable in VARIABLES}


def test_every_exported_metric_is_in_the_table() -> None:
    table = GENERATOR["metrics"]()
    assert set(re.findall(r'"(ec_[a-z_]+)"', code())) == set(re.findall(r"^\| `(ec_[a-z_]+)`", table, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_a_target(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_named_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, document


def test_only_the_log_modules_send_redis_stream_commands() -> None:
    commands = re.compile(r"\.(xadd|xread|xreadgroup|xack|xtrim|xrange|xrevrange|xpending|xgroup_\w+|xinfo_\w+)\(")
    speaking = {
        path.relative_to(ROOT).as_posix() for path in PYTHON if commands.search(path.read_text(encoding="utf-8"))
    }
    # The events are a stream of their own, and the baselines of the bench do without the module on purpose.
    assert {path for path in speaking if not path.startswith("lab/bench/")} == {
        f"broker/{name}.py" for name in ("group", "history", "registry")
    }


def test_the_table_of_faults_is_complete() -> None:
    document = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", document, re.MULTILINE)) == set(FAULTS)


def test_the_matrix_of_levels_and_guarantees_matches_the_checker() -> None:
    document = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    header, *rows = re.findall(r"^\| (?:guarantee|`\w+`) \|.*$", document, re.MULTILINE)[-len(CHECKERS) - 1 :]
    levels = [cell.strip() for cell in header.strip("|").split("|")][1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    documented = {level: {row[0].strip("`") for row in cells if row[n] == "yes"} for n, level in enumerate(levels, 1)}
    assert documented == PROMISES
    assert {row[0].strip("`") for row in cells} == set(CHECKERS)


def test_the_readme_fits_on_200_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


# -- deployment on hosts ----------------------------------------------------------------------------------------------
def test_the_forms_and_options_of_the_logs_url_are_those_that_are_accepted() -> None:
    section = (ROOT / "docs/deploy.md").read_text(encoding="utf-8").partition("## The log server\n")[2]
    section = section.partition("\n## ")[0]
    urls = [url for url in re.findall(r"`([a-z+]+://[^`]+)`", section) if "…" not in url]
    assert [type(parse(url)).__name__ for url in urls] == ["Address", "Address", "Sentinels", "Cluster"]
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.MULTILINE)
    with pytest.raises(ValueError, match="allowed are") as raised:
        parse("rediss+sentinel://h/lab14?wrong=1")
    allowed = str(raised.value).partition("allowed are ")[2].split(", ")
    assert sorted(re.findall(r"\w+", " ".join(cells))) == sorted(allowed)


@pytest.mark.parametrize("name", ["primary", "replica1", "replica2", "client", "worker"])
def test_the_environment_of_a_node_on_a_host_is_valid(name: str) -> None:
    files = [ROOT / f"deploy/hosts/{file}.env" for file in ("lab", name)]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    values = dict(line.split("=", 1) for line in lines)
    role: Any = values.pop("ROLE")
    assert set(values) <= {variable.name for variable in VARIABLES}
    assert load(role, values).node_id == f"lab14-{name}"
