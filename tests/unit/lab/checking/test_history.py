"""Histories in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.position import Position
from lab.checking import elle
from lab.checking.history import History, Plan, load, save
from lab.checking.operation import Operation
from lab.errors import LabError
from tests.support.histories import World


def test_a_history_is_read_as_it_was_saved(tmp_path: Path) -> None:
    history = World(3).history()
    save(history, tmp_path / "h.jsonl")
    found = load(tmp_path / "h.jsonl")
    assert (found.plan, found.operations) == (history.plan, history.operations)


GOOD = {
    "index": 0,
    "session": 0,
    "kind": "read",
    "outcome": "fail",
    "invoked_us": 1,
    "returned_us": 2,
    "position": None,
}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        json.dumps({**GOOD, "kind": "guess"}),
        json.dumps({**GOOD, "returned_us": 0}),
        json.dumps({**GOOD, "outcome": "ok"}),
        json.dumps({**GOOD, "position": "1:1"}),
        json.dumps({**GOOD, "invoked_us": "1"}),
        json.dumps({**GOOD, "surprise": 1}),
    ],
)
def test_a_line_that_is_no_operation_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(LabError, match="line 2"):
        load(path)


def test_a_file_that_cannot_be_read_or_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be read"):
        load(tmp_path / "none")
    with pytest.raises(LabError, match="cannot be saved"):
        save(World(1).history(), tmp_path / "none" / "h")
    with pytest.raises(LabError, match="cannot be exported"):
        elle.export(World(1).history(), tmp_path / "none" / "h")


def test_elle_is_given_an_invocation_and_a_completion_of_each_write_and_read() -> None:
    wrote = Operation(0, 1, "write", "ok", 10, 20, key="k", value="a", position=Position(1, 1), version=1)
    doubt = Operation(1, 2, "write", "unknown", 12, 30, key="k", value="b")
    shown = Operation(2, 3, "read", "ok", 25, 28, key="k", value="a", position=Position(1, 1), version=1, node="r")
    empty = Operation(3, 3, "read", "ok", 40, 41, key="x", position=Position(1, 1), node="r")
    found = elle.events(History(Plan("session"), [wrote, doubt, shown, empty]))
    assert [(event["process"], event["type"], event["value"][0]) for event in found] == [
        (1, "invoke", ["w", "k", 1]),
        (2, "invoke", ["w", "k", 2]),
        (1, "ok", ["w", "k", 1]),
        (3, "invoke", ["r", "k", None]),
        (3, "ok", ["r", "k", 1]),
        (2, "info", ["w", "k", 2]),
        (3, "invoke", ["r", "x", None]),
        (3, "ok", ["r", "x", None]),
    ]
    assert [event["index"] for event in found] == list(range(8))
