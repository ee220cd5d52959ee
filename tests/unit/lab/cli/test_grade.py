"""``lab grade``: what it prints and writes, its exit status, and the table of a class. The levels do not run."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.errors import LogUnreachable
from lab.checking.history import load
from lab.cli import grade, main
from lab.errors import LabError
from lab.grade.answers import Nonsense
from lab.grade.levels import LEVELS, Level
from lab.grade.record import Record
from tests.unit.lab.grade.run import correct
from tests.unit.lab.grade.test_judges import delayed, killed, reset

Make = Callable[[int], Record]


def right(level: int) -> Record:
    made = {3: killed, 4: correct, 6: lambda _: reset(), 5: lambda _: delayed()}
    run = made.get(level, correct)(level)
    if level == 3:
        run.end(5000)
    return run.record


def wrong(level: int) -> Record:
    """A program that acknowledges before it stores."""
    if level != 3:
        return right(level)
    run = killed(3)
    run.forget("ü")
    run.end(5000)
    return run.record


PRINTED = "log server: connection refused\n"


class Stub:
    """Stands in for the run; remembers what it was asked for."""

    def __init__(self, make: Make, printed: Path, error: Exception | None = None) -> None:
        self.make, self.error = make, error
        self.closed = False
        self.printed = printed
        self.asked: tuple[tuple[str, ...], list[int], int] = ((), [], 0)

    @contextmanager
    def surroundings(self, status: Any) -> Iterator[Any]:
        try:
            with status("starting"):
                pass
            lab = SimpleNamespace(client_url="http://127.0.0.1:8003")
            yield SimpleNamespace(lab=lab, log_file=self.printed)
        finally:
            self.closed = True

    def play(self, _: Any, command: Sequence[str], level: Level, seed: int) -> list[Record]:
        if self.error is not None and level.number == 3:
            raise self.error
        self.asked = tuple(command), [*self.asked[1], level.number], seed
        return [right(level.number), self.make(level.number)]


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Result, Stub]]:
    def invoke(make: Make, *arguments: str, error: Exception | None = None) -> tuple[Result, Stub]:
        printed = tmp_path / "lab" / "graded.log"
        printed.parent.mkdir(exist_ok=True)
        printed.write_text(PRINTED, encoding="utf-8")
        stub = Stub(make, printed, error)
        monkeypatch.setattr(grade, "run", stub)
        return CliRunner().invoke(main, ["grade", *arguments]), stub

    return invoke


def test_all_levels_are_passed(run_with: Any) -> None:
    done, stub = run_with(right, "--seed", "7", "--", "my", "--seed", "9")
    assert done.exit_code == 0, done.output
    assert stub.asked == (("my", "--seed", "9"), [level.number for level in LEVELS], 7)
    assert done.stdout.count("✔") == len(LEVELS)
    assert "p99 of the lateness between 0.0 and 6.0 ms, of 100 entries" in done.stdout.partition("✔ 5")[2]
    assert stub.closed


def test_a_failed_level_ends_it_with_a_counterexample_a_diagram_and_a_hint(run_with: Any) -> None:
    done, stub = run_with(wrong, "--level", "2-5", "--", "my")
    assert done.exit_code == 1
    assert stub.closed
    first, *lines = done.stdout.splitlines()
    assert first == "Watch it in the console: http://127.0.0.1:8003"
    assert [line[:3] for line in lines[:2]] == ["✔ 2", "✘ 3"]
    assert "Level 3: 1-4 was acknowledged at 3.214 s; killed at 3.215 s; after the restart key ü is missing" in lines
    assert "    3.215 s     ●─────────────────▶        │      killed" in lines
    assert lines[-1] == f"See docs/bring-your-own.md#level-3; repeat it with --level 3 --seed {stub.asked[2]}."
    assert "4" not in {line[2] for line in lines[:3] if line}


def test_all_goes_on_after_a_failed_level(run_with: Any) -> None:
    done, _ = run_with(wrong, "--all", "--json", "--", "my")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["passed"], found["of"]) == (1, len(LEVELS) - 1, len(LEVELS))


def test_the_result_is_written_and_is_reproducible(run_with: Any, tmp_path: Path) -> None:
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    for path in paths:
        done, _ = run_with(wrong, "--seed", "7", "--out", str(path), "--json", "--", "my", "a b")
        assert json.loads(done.stdout) == json.loads(path.read_text("utf-8"))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    found = json.loads(paths[0].read_text("utf-8"))
    assert (found["command"], found["seed"], found["passed"]) == (["my", "a b"], 7, 2)
    assert [level["passed"] for level in found["levels"]] == [True, True, False, *[None] * (len(LEVELS) - 3)]
    third = found["levels"][2]
    assert third["words"].startswith("1-4 was acknowledged at 3.214 s")
    assert third["hint"] == "docs/bring-your-own.md#level-3"
    assert third["tested"]["durable"] == 8
    assert third["events"][1] == {"at_us": 3_214_000, "lane": "replica", "words": "acknowledged 1-4", "to": "log"}


def test_the_history_and_the_diagram_are_saved(run_with: Any, tmp_path: Path) -> None:
    history, diagram, log = (tmp_path / name for name in ("history.jsonl", "diagram.svg", "printed.log"))
    run_with(wrong, "--save", str(history), "--svg", str(diagram), "--log", str(log), "--", "my")
    assert log.read_text("utf-8") == PRINTED
    assert load(history).operations == wrong(3).history.operations
    assert "after" not in diagram.read_text("utf-8")
    assert "acknowledged 1-4" in diagram.read_text("utf-8")


def test_without_a_failed_level_nothing_is_drawn(run_with: Any, tmp_path: Path) -> None:
    done, _ = run_with(right, "--svg", str(tmp_path / "x.svg"), "--", "my")
    assert "There is nothing to draw: " in done.stdout
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(
    "error",
    [Nonsense("GET /version was answered with 200, but \x1b[2J"), LabError("no log"), LogUnreachable("it is down")],
)
def test_a_program_that_cannot_be_graded_gets_one_sentence(run_with: Any, error: Exception, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done, stub = run_with(right, "--all", "--out", str(out), "--", "my", error=error)
    assert (done.exit_code, stub.closed) == (2, True)
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.output
    assert out.exists() == isinstance(error, Nonsense)  # otherwise it says nothing about the program
    if out.exists():
        levels = json.loads(out.read_text("utf-8"))["levels"]
        assert [level["passed"] for level in levels][:4] == [True, True, False, None]
        assert levels[2]["words"] == str(error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give the program's command after --."),
        (["--table"], "Give files after --table."),
        (["--level", "0", "--", "my"], "'0' is neither a level from 1 to 8 nor a range such as 1-3"),
        (["--level", "9", "--", "my"], "'9' is neither"),
        (["--level", "3-1", "--", "my"], "'3-1' is neither"),
        (["--level", "1-", "--", "my"], "'1-' is neither"),
        (["--level", "²", "--", "my"], "'²' is neither"),
        (["my", "--verbose"], "No such option"),
    ],
)
def test_a_wrong_use_is_rejected(run_with: Any, arguments: list[str], said: str) -> None:
    done, _ = run_with(right, *arguments)
    assert (done.exit_code, said in done.stderr) == (2, True)


def test_a_class_is_a_table(run_with: Any, tmp_path: Path) -> None:
    anna, ben = tmp_path / "anna.json", tmp_path / "[b]en.json"
    run_with(right, "--out", str(anna), "--", "a")
    run_with(wrong, "--out", str(ben), "--", "b")
    done = CliRunner().invoke(main, ["grade", "--table", str(anna), str(ben)])
    assert done.exit_code == 0
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == [*(str(level.number) for level in LEVELS), "passed"]
    assert first.split() == [str(anna), *["✔"] * len(LEVELS), "8", "of", "8"]
    assert second.split() == [str(ben), "✔", "✔", "✘", *["·"] * 5, "2", "of", "8"]


def without(found: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: b"", "Invalid JSON"),
        (lambda _: b"\xff", "not UTF-8"),
        (lambda _: b" " * (2**20 + 1), "more than the allowed 1,048,576 bytes"),
        (lambda found: without(found, "seed"), "seed: Field required"),
        (lambda found: found | {"more": 1}, "more: Extra inputs are not permitted"),
        (lambda found: found | {"levels": found["levels"][:7]}, "levels: List should have at least 8 items"),
        (lambda found: found | {"levels": [found["levels"][0]] * 8}, "its levels and their sum do not fit together"),
        (lambda found: found | {"passed": 7}, "its levels and their sum do not fit together"),
        (lambda found: found | {"passed": "8"}, "passed: Input should be a valid integer"),
    ],
)
def test_a_file_that_is_no_result_is_named(run_with: Any, tmp_path: Path, spoil: Any, said: str) -> None:
    path = tmp_path / "x.json"
    run_with(right, "--out", str(path), "--", "a")
    spoiled = spoil(json.loads(path.read_text("utf-8")))
    path.write_bytes(spoiled if isinstance(spoiled, bytes) else json.dumps(spoiled).encode())
    done = CliRunner().invoke(main, ["grade", "--table", str(path)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {path}")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
