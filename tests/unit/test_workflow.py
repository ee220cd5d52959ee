"""CI runs the Python versions that the package supports."""

import configparser
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_ci_runs_each_python_version_of_the_classifiers() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    claimed = re.findall(r"Python :: (3\.\d+)$", setup["metadata"]["classifiers"], re.MULTILINE)
    assert workflow["jobs"]["ci"]["strategy"]["matrix"]["python"] == claimed
    assert setup["options"]["python_requires"] == f">={claimed[0]}"
    (on_macos,) = [
        step["with"]["python-version"] for step in workflow["jobs"]["macos"]["steps"] if "python" in str(step)
    ]
    assert on_macos in claimed
