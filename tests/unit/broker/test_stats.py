"""One definition of quantiles throughout the lab."""

import re
from io import StringIO
from pathlib import Path
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from broker.position import Position
from broker.stats import quantile, spread
from lab.checking import promises
from lab.checking.history import History, Operation, Plan
from lab.checking.report import picture, took_ms

ROOT = Path(__file__).resolve().parents[3]
FEW = [10.0, 20.0, 30.0, 40.0]


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=50), st.integers(1, 99))
def test_a_quantile_lies_at_its_share_of_the_way_through_the_sorted_values(values: list[float], percent: int) -> None:
    expected = quantiles(values, n=100, method="inclusive")[percent - 1]
    assert quantile(values, percent / 100) == pytest.approx(expected, abs=1e-3)
    assert (quantile(values, 0), quantile(values, 1)) == (min(values), max(values))


def test_a_spread_includes_the_count() -> None:
    assert spread(FEW) == {"count": 4, "min": 10, "p50": 25, "p95": 38.5, "p99": 39.7, "max": 40}
    assert spread([7.0]) == {"count": 1, "min": 7, "p50": 7, "p95": 7, "p99": 7, "max": 7}
    assert spread([]) == {"count": 0, "min": None, "p50": None, "p95": None, "p99": None, "max": None}


def test_nothing_else_computes_quantiles() -> None:
    other = re.compile(r"np\.(nan)?(quantile|percentile)|statistics(\.| import .*)quantiles|int\((share|q) \*")
    here = {Path(__file__).relative_to(ROOT), Path("broker/stats.py")}
    sources = [path for name in ("broker", "nodes", "lab", "tests", "docs") for path in (ROOT / name).rglob("*.py")]
    found = {path.relative_to(ROOT) for path in sources if other.search(path.read_text(encoding="utf-8"))}
    assert found - here == set()


def test_a_check_reports_the_number_of_operations_behind_its_percentiles() -> None:
    reads = [
        Operation(number, 1, "read", "ok", number, number + 1, key="k", position=Position(1, 0), waited_ms=ms)
        for number, ms in enumerate(FEW)
    ]
    history = History(Plan("session"), tuple(reads))
    assert took_ms(history, "read") == spread(FEW)
    out = Console(width=120, record=True, quiet=False, file=StringIO())
    out.print(picture(history, promises.judge(history)))
    shown = out.export_text()
    assert "reads waited: p50 25.0 ms, p95 38.5 ms, p99 39.7 ms, of 4" in shown
    assert "writes waited: there were none" in shown
