"""Figures of the bench, and their table."""

import pytest
from rich.console import Console

from lab.bench.figure import GROUPS, Figure, Target, measure_of
from lab.cli.bench import picture


def test_the_median_of_the_ratios_of_all_rounds_is_judged() -> None:
    figure = Figure("writes", "POST /data", "1/s", [80, 90, 30], "bare", [100, 100, 60], Target("at least", 0.75))
    assert figure.ratios == [0.8, 0.9, 0.5]
    assert figure.judged == 0.8
    assert figure.reached
    assert figure.as_json()["ratio"] == {"median": 0.8, "min": 0.5, "max": 0.9, "rounds": [0.8, 0.9, 0.5]}


@pytest.mark.parametrize(("bound", "reached"), [("at least", False), ("at most", True)])
def test_without_a_baseline_the_figure_itself_is_judged(bound: str, reached: bool) -> None:
    figure = Figure("start", "import", "s", [0.3, 0.5, 0.1], target=Target(bound, 0.4))  # type: ignore[arg-type]
    assert figure.reached is reached
    assert figure.as_json()["ratio"] is None


def test_a_figure_without_a_target_is_not_judged() -> None:
    assert Figure("start", "memory of client", "MB", [60]).reached is None


def test_the_table_shows_medians_spread_and_verdict() -> None:
    figures = [
        Figure(
            "writes", "POST /data", "1/s", [2500, 2400, 2600], "bare Flask app", [3000] * 3, Target("at least", 0.9)
        ),
        Figure("start", "import", "s", [0.3], target=Target("at most", 0.6)),
    ]
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(picture(figures))
    shown = " ".join(capture.get().split())
    assert "POST /data 1/s 2,500 (2,400 to 2,600) 3,000 (3,000 to 3,000) bare Flask app 0.833 (0.8 to 0.867) ✗" in shown
    assert "import s 0.3 (0.3 to 0.3) ✓ at most 0.6" in shown


def test_every_group_has_a_measure() -> None:
    for group in GROUPS:
        assert callable(measure_of(group))
