"""The audit compares contents; the test of the fault ``corrupt`` shows what it finds."""

from __future__ import annotations

from tests.support.replica import Broken


def test_an_audit_of_much_is_seldom(broken: Broken) -> None:
    times = iter([0.0, 3.0])
    assert broken.audit(lambda: next(times)).step() == 150
