"""Reports of replicas: runs of positions as compact text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.position import Position
from broker.report import Report, Reports


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 30)), unique=True))
def test_a_report_can_be_read_back(positions: list[tuple[int, int]]) -> None:
    report = Report("r1", 7, 2, tuple(Position(*position) for position in positions))
    assert Report.from_text(report.as_text()) == report


def test_consecutive_positions_are_one_run() -> None:
    report = Report("r1", 7, 0, [Position(1, version) for version in (3, 4, 5, 9)])
    assert '"acknowledged":{"1-3":3,"1-9":1}' in report.as_text()


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", '{"acknowledged":[]}', '{"acknowledged":{"1-1":1000000000000}}', '{"acknowledged":{"x":1}}'],
)
def test_texts_of_other_programs_on_the_channel_are_ignored(fake: Any, text: str) -> None:
    reports = Reports(fake)
    fake.publish("lab14:acknowledged", text)
    fake.publish("lab14:acknowledged", Report("r1", 7, 2).as_text())
    assert list(reports.wait(1)) == [Report("r1", 7, 2)]
