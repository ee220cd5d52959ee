"""The bench runs; its results on a shared machine are not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.needs("minutes")
@pytest.mark.timeout(180)
def test_a_quick_bench_measures_the_lab_against_its_baselines(tmp_path: Path) -> None:
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

    bench, document = tmp_path / "bench.json", tmp_path / "performance.md"
    bench.write_text(done.stdout)
    document.write_text(before := (DOCS / "performance.md").read_text())
    line = [sys.executable, str(DOCS / "figures.py"), "performance", str(bench), "--out", str(document)]
    subprocess.run(line, check=True, timeout=60)
    after = document.read_text()
    head, end = "| figure", "\nThe baselines are"
    assert after.split(head)[0] == before.split(head)[0]
    assert after.split(end)[1] == before.split(end)[1]
    table = after.split(head)[1].split(end)[0]
    assert [line.split(" | ")[0] for line in table.splitlines()[3:]] == [f"| {name}" for name in figures]
