"""The bench works; what it finds on a shared machine is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys


def test_a_quick_bench_measures_the_lab_against_its_baselines() -> None:
    line = [sys.executable, "-m", "lab", "bench", "--quick", "--only", "writes", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["quick"]
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert len(figures) == len(found["figures"]) == 6
    for figure in figures.values():
        print(figure["name"], figure["lab"]["median"], figure["unit"], "ratio", figure["ratio"]["median"])
        assert len(figure["ratio"]["rounds"]) == 2
        assert min(figure["ratio"]["rounds"]) > 0
        assert figure["reached"] in {True, False, None}
