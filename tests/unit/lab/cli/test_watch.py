"""``lab watch``: the feed as a table."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from lab.cli import main
from lab.cli.watch import View, run_recording, sparkline


def shown(view: View) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(view.picture())
    return " ".join(capture.get().split())


def state(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"replica_id": "r1", "applied_position": "1-3", "lag_ms": 120.0, "lag_versions": 2}
    found |= {"pending": 2, "delay_ms": 500.0}
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


def recorded(*times_ms: int) -> list[dict[str, Any]]:
    """A message at each time, after each of which the replica is one version further."""
    return [{"now_ms": at, "state": [state(applied_position=f"1-{number}")]} for number, at in enumerate(times_ms, 1)]


class Pace:
    """A clock that moves with the sleeps, and by 30 ms with each picture."""

    def __init__(self, interrupted_after: int = 100) -> None:
        self.now = 50.0
        self.slept: list[float] = []
        self.interrupted_after = interrupted_after

    def sleep(self, seconds: float) -> None:
        if len(self.slept) == self.interrupted_after:
            raise KeyboardInterrupt
        self.slept.append(round(seconds, 3))
        self.now += seconds + 0.03

    def clock(self) -> float:
        return self.now


def test_a_recording_is_shown_at_its_own_speed_and_ends_with_the_last_picture(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pace = Pace()
    run_recording(recorded(5000, 6000, 6010, 9000), pace.sleep, pace.clock)
    assert pace.slept == [1.0, 0.0, 2.94]  # the time that a picture takes does not add up
    shown = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("r1")]
    assert shown == ["1-1", "1-2", "1-3", "1-4"]


def test_ctrl_c_ends_a_recording(capsys: pytest.CaptureFixture[str]) -> None:
    pace = Pace(interrupted_after=1)
    run_recording(recorded(0, 1000, 2000), pace.sleep, pace.clock)
    assert capsys.readouterr().out.count("r1") == 2


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


GOOD = json.dumps(recorded(1)[0])


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["{"], "line 1: not JSON"),
        ([GOOD, "", "nonsense"], "line 3: not JSON"),
        ([GOOD, "[1]"], "line 2: not a message of the event feed"),
        ([GOOD, "{}"], "line 2: not a message of the event feed: now_ms: Field required"),
        ([GOOD, '{"now_ms": "1"}'], "line 2: not a message of the event feed: now_ms"),
        ([GOOD, '{"now_ms": 1e300}'], "line 2: not a message of the event feed: now_ms"),
        ([GOOD, '{"now_ms": NaN}'], "line 2: not JSON"),
        ([GOOD, '{"now_ms": 1, "writes": [{"position": "x"}]}'], "line 2: not a message of the event feed: writes.0"),
        ([GOOD, '{"now_ms": 1, "state": [{}]}'], "line 2: not a message of the event feed: state.0.replica_id"),
        ([GOOD, '{"now_ms": 1, "state": 5}'], "line 2: not a message of the event feed: state"),
        ([], "contains no messages"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--page"]])
def test_a_broken_recording_is_an_error_of_one_line(
    tmp_path: Path, lines: list[str], why: str, options: list[str]
) -> None:
    file = written(tmp_path / "broken.jsonl", *lines)
    done = CliRunner().invoke(main, ["watch", "--replay", str(file), *options])
    assert (done.exit_code, done.stdout) == (1, "")
    assert why in done.stderr
    assert str(file) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_recording_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "long.jsonl", *[GOOD] * 3)
    monkeypatch.setattr("lab.recording._MESSAGES_MAX", 2)
    assert "more than the allowed 2 messages" in CliRunner().invoke(main, ["watch", "--replay", str(file)]).stderr
    monkeypatch.setattr("lab.recording._BYTES_MAX", 10)
    assert "more than the allowed 10 bytes" in CliRunner().invoke(main, ["watch", "--replay", str(file)]).stderr


def test_a_recording_that_does_not_exist_and_a_page_without_one_are_errors(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["watch", "--replay", str(tmp_path / "none.jsonl")])
    assert (done.exit_code, "cannot be read: No such file or directory" in done.stderr) == (1, True)
    done = CliRunner().invoke(main, ["watch", "--page"])
    assert (done.exit_code, "name it with --replay" in done.stderr) == (2, True)


def test_lab_watch_replays_a_file_to_its_end(tmp_path: Path) -> None:
    file = written(tmp_path / "short.jsonl", *map(json.dumps, recorded(0, 20)))
    done = CliRunner().invoke(main, ["watch", "--replay", str(file)])
    assert done.exit_code == 0
    assert "1-2" in done.stdout.splitlines()[-3]
