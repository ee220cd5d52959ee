"""The page of a run: its bands and brackets, the figures of the table, and every measurement."""

import json
import re

import pytest

from lab.checking.history import History, Kind, Operation, Plan
from lab.probe.figures import Figures, calibrate, figures
from lab.probe.instrument import Limits
from lab.probe.report import _age_ms, page, sessions_page
from lab.probe.table import bounds
from lab.probe.target import Settings
from tests.support.pages import require_self_contained
from tests.unit.lab.probe.store import Delay, simulate, store

LIMITS = Limits(seconds=10.0, give_up_seconds=2.0)
NASTY = "</script><img src=x onerror=alert(1)>"


def measured(*delays: Delay, limits: Limits = LIMITS) -> Figures:
    primary, replicas = store(*delays)
    return figures(simulate(primary, replicas, limits))


def lost_for_a_second(at: float) -> float:
    return 1e9 if 1002 <= at < 1003 else 0.2


def texts(page: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", page)


def test_each_replica_has_its_bands_and_its_brackets() -> None:
    found = measured(lambda _: 0.2, lambda _: 0.0)
    text = page(found)
    shown = require_self_contained(text)
    assert json.loads(shown.data) == json.loads(json.dumps(found))
    assert shown.names.count("figure") == 4
    for said in ("95 % interval", "certain, of this run", "bracket of a write"):
        assert texts(text).count(said) == 2
    assert "configured" not in texts(text)


def test_the_tables_are_those_of_the_terminal() -> None:
    found = measured(lambda _: 0.2)
    text = page(found)
    title, _, rows = bounds(found["replicas"][0])
    assert f"<caption>{title}</caption>" in text
    for row in rows:
        assert "".join(f"<td>{cell}</td>" for cell in row) in text
    assert "primary: 100 of 100 writes in 10 s" in text


def test_a_write_that_was_not_seen_is_marked_as_such() -> None:
    text = page(measured(lost_for_a_second))
    assert texts(text).count("not visible by the end: later than this") == 1
    assert "10 writes were not visible by the end" in text
    assert "not visible by the end" not in page(measured(lambda _: 0.2))


def test_what_is_configured_is_shown_beside_what_is_measured() -> None:
    found = measured(lambda _: 0.2)
    calibrate(
        found, [[(0.9, 1.0) if stale["after_ms"] < 200 else (0.0, 0.0) for stale in found["replicas"][0]["stale"]]]
    )
    text = page(found)
    assert "configured" in texts(text)
    assert '<th scope="col">configured</th>' in text


@pytest.mark.parametrize("delay", [lambda _: 1e9, lambda _: 0.0], ids=["nothing was ever seen", "everything at once"])
def test_an_extreme_store_has_a_page(delay: Delay) -> None:
    assert require_self_contained(page(measured(delay))).names.count("figure") == 2


def test_a_replica_without_writes_has_no_picture() -> None:
    primary, replicas = store(lambda _: 0.0)
    found = figures(simulate(primary, replicas, Limits(seconds=0.1)))
    found["replicas"][0]["brackets"] = []
    assert require_self_contained(page(found)).names.count("figure") == 0


def test_text_from_a_store_is_escaped() -> None:
    primary, replicas = store(lambda _: 0.2)
    replicas[0].name = NASTY
    replicas[0].settings = lambda: Settings("one", {NASTY: NASTY}, [NASTY])  # type: ignore[method-assign]
    text = page(figures(simulate(primary, replicas, LIMITS)))
    assert "img" not in require_self_contained(text).names


def test_the_staleness_of_a_read_is_the_age_of_the_oldest_write_that_it_lacks() -> None:
    def operation(index: int, kind: Kind, invoked_us: int, version: int, node: str = "") -> Operation:
        return Operation(index, 0, kind, "ok", invoked_us, invoked_us + 1000, "k", str(version), None, version, node)

    operations = [
        operation(0, "write", 0, 1),
        operation(1, "write", 10_000, 2),
        operation(2, "read", 12_000, 2, "r"),
        operation(3, "read", 21_000, 1, "r"),
        operation(4, "read", 31_000, 0, "r"),
        operation(5, "read", 10_500, 1, "r"),
    ]
    assert [max(_age_ms(write, read) for write in operations[:2]) for read in operations[2:]] == [0, 10, 30, 0]
    shown = require_self_contained(sessions_page(History(Plan("observed", positions=False), operations)))
    assert shown.names.count("figure") == 1
