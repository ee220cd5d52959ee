"""The page of an experiment: complete, self-contained, and safe whatever the data contains."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lab.report
from broker.delay.models import Fixed
from broker.delay.prediction import Replicated
from lab.cli import main
from lab.errors import LabError
from lab.report import tables
from lab.report.page import page
from nodes.experiments.spec import Staleness
from nodes.worker.staleness import Measured, Read
from tests.support.experiments import FINISHED, experiment
from tests.support.pages import Page, require_self_contained


@pytest.mark.parametrize("found", FINISHED.values(), ids=FINISHED)
def test_it_has_charts_tables_and_every_measurement_and_sends_no_request(found: dict[str, Any]) -> None:
    shown = require_self_contained(page(found))
    assert json.loads(shown.data) == found
    assert shown.names.count("figure") >= 1
    assert shown.names.count("table") >= 2


def test_text_from_an_experiment_is_escaped() -> None:
    nasty = "</script><img src=x onerror=alert(1)>"
    found = json.loads(json.dumps(FINISHED["windows"]).replace('"r1"', json.dumps(nasty)))
    found["spec"]["settings"] = {nasty: {"delay_ms": 1}}
    shown = Page(page(found))
    assert json.loads(shown.data) == found
    assert "img" not in shown.names


@pytest.mark.parametrize("state", ["queued", "running", "failed", "cancelled"])
def test_only_a_finished_experiment_has_a_page(state: str) -> None:
    with pytest.raises(LabError, match=f"is {state}"):
        page(experiment("windows", None, state=state))


def test_the_same_data_gives_the_same_page() -> None:
    assert page(FINISHED["staleness"]) == page(FINISHED["staleness"])


def cells(name: str) -> str:
    found = FINISHED[name]
    rows = tables.rows_of(found["kind"], found["spec"], found["result"])
    return "\n".join(" | ".join(row) for _, _, body in rows for row in body)


def test_tables_have_the_figures() -> None:
    assert "consistency window | 3 | 1500.0 | 1501.0 | 1502.0 | 1503.0" in cells("windows")
    assert "28.87%" in cells("windows")
    assert "timeouts | 1" in cells("windows")
    assert "10 | 50 | 90.0% | 88.0%\n20 | 60 | 50.0% | 52.0%\nall 2 steps | 110 | RMSE | 2.00%" in cells("staleness")
    assert "session | 3 | 900.0 | 901.0 | 902.0 | 903.0 | 25.0% | 100.0% | 1" in cells("levels")
    assert "10 | 50 | 90.0% | 88.0%\n20 | 60 | 50.0% | 52.0%\nall 2 steps | 110 | RMSE | 2.00%" in cells("quorum")
    assert "1 | 75.0% | 76.0%\n2 | 100.0% | 99.0%" in cells("quorum")
    assert "write, measured | 3 | 52.0 | 53.0 | 54.0\nwrite, predicted |  | 50.0 | 51.0 | 52.0" in cells("quorum")
    assert "5 | 110 | 2.00%" in cells("sweep of quorum")
    assert "5 | 3 | 1500.0" in cells("sweep of windows")
    assert "10 | 110 | 2.00%" in cells("sweep of staleness")
    assert "10 | strong | 3 | 2.0" in cells("sweep of levels")


def test_a_curve_with_all_reads_after_the_horizon_has_no_rmse() -> None:
    measured = Measured(Staleness(kind="staleness", steps=2), 10.0, ["r1"])
    measured.reads.append(Read(50.0, 0, stale=False, version=1))
    found = measured.figures({"r1": Replicated(Fixed(5))})
    json.dumps(found, allow_nan=False)
    ((_, _, rows),) = tables.rows_of("staleness", {}, found)
    assert rows == []
    spec = {"kind": "sweep", "experiment": {"kind": "staleness"}}
    ((_, _, rows),) = tables.rows_of("sweep", spec, {"parameter": "seed", "steps": [{"value": 7, "result": found}]})
    assert rows == [["7", "1", ""]]


def test_a_partial_result_of_a_quorum_has_the_curve_alone() -> None:
    found = {name: FINISHED["quorum"]["result"][name] for name in ("n", "r", "w", "stale", "reads")}
    ((title, _, rows),) = tables.rows_of("quorum", {}, found)
    assert (title, rows[0][0]) == ("P(a read is stale), n=3 r=1 w=2", "10")


def test_a_long_curve_is_thinned_for_the_table() -> None:
    curve = {"t_ms": [float(n) for n in range(100)], "reads": [1] * 100, "measured": [0.5] * 100}
    (rows,) = [body for _, _, body in tables.rows_of("staleness", {}, {"stale": curve, "reads": 100})]
    assert len(rows) <= 15


def test_without_matplotlib_the_command_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "lab.report.page", raising=False)
    monkeypatch.delattr(lab.report, "page", raising=False)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["experiment", "report", "3f2c9a1b7d40", "--client-url", "http://127.0.0.1:9"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: Charts need matplotlib: install it with "
        "`pip install 'eventual-consistency-lab[report]'`, or in a checkout with `make up`.\n"
    )
    assert list(tmp_path.iterdir()) == []
