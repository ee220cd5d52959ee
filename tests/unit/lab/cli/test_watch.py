"""``lab watch``: the feed as a table."""

import itertools
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from lab.cli.watch import View, sparkline


def shown(view: View) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(view.picture())
    return " ".join(capture.get().split())


def state(**changes: Any) -> dict[str, Any]:
    found = {"replica_id": "r1", "applied_position": "1-3", "lag_ms": 120.0, "pending": 2, "delay_ms": 500.0}
    return {**found, "live": True, "faults": [], "diverged": False, "resyncing": "", **changes}


def test_positions_lag_and_pending_entries_are_shown_and_updated_between_states() -> None:
    view = View()
    view.take({"now_ms": 0, "state": [state()], "writes": [{"position": "1-5"}]})
    assert "r1 1-3 2 120 ms 2 500 ms █ live" in shown(view)
    view.take({"now_ms": 0, "applied": [{"replica": "r1", "position": "1-4"}]})
    assert "r1 1-4 1 120 ms" in shown(view)


def test_faults_events_and_unreachable_nodes_are_shown() -> None:
    view = View()
    view.take({"now_ms": 0, "state": [state(faults=["pause"], diverged=True, resyncing="gap")]})
    view.take({"now_ms": 0, "events": [{"at_ms": 0, "kind": "fault", "replica": "[red]r1"}]})
    view.take({"now_ms": 0, "unreachable": [{"node": "r1", "detail": "r1 cannot be reached"}]})
    text = shown(view)
    assert "pause, diverged, gap" in text
    assert "fault replica=[red]r1" in text
    assert "r1 cannot be reached" in text


def test_a_replica_in_another_epoch_is_behind_by_the_number_in_its_state() -> None:
    view = View()
    view.take({"now_ms": 0, "state": [state(lag_versions=50)], "writes": [{"position": "2-50"}]})
    assert "r1 1-3 50 120 ms" in shown(view)


@pytest.mark.parametrize(("values", "bars"), [([], ""), ([0, 0], "▁▁"), ([0, 5, 10], "▁▅█")])
def test_a_sparkline_is_as_high_as_its_highest(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


PIPED = """
import itertools
from lab.cli import watch
state = {state!r}
messages = ({{"now_ms": 0, "state": [{{**state, "applied_position": f"1-{{n}}"}}]}} for n in itertools.count(1))
watch.client.messages = lambda _: messages
watch.run("http://127.0.0.1:9", print)
"""


def test_in_a_pipe_it_prints_one_picture_after_another_until_the_pipe_is_closed() -> None:
    """Like `lab watch | head`."""
    command = [sys.executable, "-c", PIPED.format(state=state())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        shown = [line.split()[1] for line in itertools.islice(watching.stdout, 20) if line.startswith("r1")]
        assert shown[:3] == ["1-1", "1-2", "1-3"]
        watching.stdout.close()
        assert watching.wait(10) == 1
        assert watching.stderr.read() == ""
