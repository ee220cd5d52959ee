"""The wheel contains every file of the packages, and runs without a checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

# The demo takes the default ports if they are free, as the containers do.
pytestmark = [pytest.mark.needs("index"), pytest.mark.timeout(300), pytest.mark.xdist_group("default-ports")]
ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "nodes", "lab")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def run(*line: str | Path, **options: object) -> str:
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=240, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment that contains only pip."""
    directory = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", directory)
    return directory / "bin" / "python"


@pytest.fixture(scope="module")
def wheel(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the checkout stays clean."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, copy)
    (found,) = out.glob("*.whl")
    return found


def test_it_contains_every_file_of_the_packages_and_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    paths = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    expected = {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}
    assert {name.rpartition(".")[2] for name in expected} >= {"py", "lua", "html", "js", "css"}
    assert expected - packed == set()
    assert [name for name in packed if name.endswith(".dist-info/licenses/LICENSE")]


def test_it_runs_the_demo_in_an_empty_directory(python: Path, wheel: Path, tmp_path: Path) -> None:
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    run(*pip, wheel, env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
    empty, home = tmp_path / "empty", tmp_path / "home"
    empty.mkdir()
    home.mkdir()
    environment = {"PATH": os.defpath, "HOME": str(home)}
    found = json.loads(run(python.parent / "lab", "demo", "--json", "--windows", "1", cwd=empty, env=environment))
    assert found["delays_ms"] == {"lab14-replica1": 500, "lab14-replica2": 1500}
    assert list(empty.iterdir()) == []
