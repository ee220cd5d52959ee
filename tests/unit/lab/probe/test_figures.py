"""A run's figures: no number for what is not known, and the trace that the lab takes."""

from pathlib import Path

import pytest
from rich.console import Console

from lab import files
from lab.probe.brackets import Bracket, Write
from lab.probe.figures import TRACE_HEADING, calibrate, figures, trace
from lab.probe.instrument import Limits, Replica, Run
from lab.probe.table import picture
from lab.probe.target import Settings
from tests.unit.lab.probe.store import simulate, store


def run_of(*brackets: Bracket, ended: str = "", settings: Settings = Settings()) -> Run:  # noqa: B008
    replica = Replica("replica [1]", settings, list(brackets), [0.002], 1, 0, was_replica=True)
    writes = [Write(one.number, "k0001", one.sent, one.acked) for one in brackets]
    return Run("primary", Settings(), 100.0, writes, [replica], [], [], 0, ended, 5.0)


SEEN = Bracket(1, 101.0, 101.01, 101.11, 101.13)
AT_ONCE = Bracket(2, 102.0, 102.01, 102.0, 102.005)
UNSEEN = Bracket(3, 103.0, 103.01, 104.01, None)


def shown(run: Run) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(picture(figures(run)))
    return captured.get()


def test_the_trace_has_the_middle_and_for_an_unseen_write_the_lower_end(tmp_path: Path) -> None:
    run = run_of(SEEN, AT_ONCE, UNSEEN)
    text = trace(run, run.replicas[0])
    assert text.splitlines() == [TRACE_HEADING, "1.000,100,120,110", "2.000,0,0,0", "3.000,1000,,1000"]
    (tmp_path / "lag.csv").write_text(text)
    delays_ms, summary = files.delays(tmp_path / "lag.csv")
    assert delays_ms == [110, 0, 1000]
    assert summary.endswith("column 4 (middle or at least (ms))")


def test_what_is_not_known_is_null_and_a_question_mark() -> None:
    run = run_of(SEEN, UNSEEN)
    (replica,) = figures(run)["replicas"]
    assert replica["quantiles_ms"]["p99"]["at_most"] is None
    assert (replica["unseen"], replica["unseen_at_least_ms"]) == (1, 1000.0)
    assert "1 writes were not visible by the end, the longest for at least 1,000 ms" in shown(run)
    assert "?" in shown(run)
    assert "nan" not in shown(run)
    assert "inf" not in shown(run)


def test_a_run_without_a_write_shows_no_number() -> None:
    (replica,) = figures(run_of())["replicas"]
    assert replica["quantiles_ms"]["p50"] == {"at_least": None, "at_most": None, "low": None, "high": None}
    assert {stale["at_most"] for stale in replica["stale"]} == {None}
    assert "0.0%" not in shown(run_of())


def test_names_and_settings_are_text() -> None:
    settings = Settings(values={"delay": "[red]" + "x" * 5000}, warnings=["[bold]it surprises"])
    found = shown(run_of(SEEN, ended="it was [blue]", settings=settings))
    for text in ("replica [1]", "[red]x", "warning: [bold]it surprises", "it was [blue]."):
        assert text in found
    assert "x" * 200 not in found


def test_a_node_that_is_no_replica_is_a_warning() -> None:
    primary, replicas = store(lambda _: 0.0)
    replicas[0].is_replica = False
    run = simulate(primary, replicas, Limits(seconds=1.0))
    assert "it is a primary, not a replica" in figures(run)["replicas"][0]["warnings"]


def test_the_configured_staleness_stands_beside_the_measured_one() -> None:
    run = run_of(SEEN)
    found = figures(run)
    assert "configured" not in shown(run)
    calibrate(found, [[(0.125, 0.125)] + [(0.125, 0.25)] * (len(found["replicas"][0]["stale"]) - 1)])
    console = Console(width=200)
    with console.capture() as captured:
        console.print(picture(found))
    assert captured.get().count("12.5%") == len(found["replicas"][0]["stale"])
    assert captured.get().count("12.5%..25.0%") == len(found["replicas"][0]["stale"]) - 1


@pytest.mark.parametrize("ended", ["", "the disk is full"])
def test_why_a_run_ended_is_shown(ended: str) -> None:
    assert ("The run ended after 5 s: the disk is full." in shown(run_of(SEEN, ended=ended))) == bool(ended)
