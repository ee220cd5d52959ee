"""Histories in files."""

import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from broker.position import Position
from lab.checking import promises, report
from lab.checking.history import History, Operation, Plan, elle_events, export, load, save
from lab.errors import LabError
from tests.support.histories import World


def test_a_saved_history_loads_unchanged(tmp_path: Path) -> None:
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
def test_an_error_names_the_invalid_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(LabError, match="line 2"):
        load(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            {"plan": {"level": "foo"}},
            "line 1: plan.level: .*'quorum', 'eventual' or 'observed'",
        ),
        ({"plan": {"level": "strong", "keys": "1"}}, "line 1: plan.keys: .*integer"),
        ({"plan": 5}, "line 1: plan: "),
        ({**GOOD, "key": ["x"]}, "line 1: key: .*string"),
        ({**GOOD, "epoch": "1"}, "line 1: epoch: .*integer"),
        ({**GOOD, "kind": "guess"}, "line 1: kind: .*'write', 'read', 'final' or 'digest'"),
        ({**GOOD, "surprise": 1}, "line 1: surprise: "),
        ({**GOOD, "outcome": "ok"}, "line 1: position: missing"),
    ],
)
def test_an_error_names_the_field_and_the_allowed_values(line: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps(GOOD) + "\n")
    with pytest.raises(LabError, match=said):
        load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "has no operations", id="empty"),
        pytest.param(b'{"plan": {"level": "strong"}}\n', "has no operations", id="plan only"),
        pytest.param(b"[" * 100_000, "line 1: ", id="deep"),
        pytest.param(b'{"plan":' + b"[" * 100_000, "line 1: ", id="deep plan"),
        pytest.param(b"\xff\n", "line 1: ", id="not UTF-8"),
        pytest.param(b" " * 5 * 2**20, "line 1: more than 4,194,304 bytes", id="long line"),
        pytest.param(b'{"index": 1e400}', "line 1: ", id="number"),
        pytest.param(b"\n", "line 1: ", id="blank"),
    ],
)
def test_an_invalid_file_is_rejected_with_one_message(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(content)
    with pytest.raises(LabError, match=said) as raised:
        load(path)
    assert len(str(raised.value)) < 400


def test_every_operation_that_loads_can_be_judged(tmp_path: Path) -> None:
    lines = [found.as_json() for found in World(3, length=20).history().operations]
    strange = [None, True, -1, 0, 10**30, 1.5, "", "x", "1-1", "2-0", "ok", "write", "digest", [], {}, ["x"]]
    path = tmp_path / "h.jsonl"
    taken = 0
    for number, name, value in itertools.product((0, len(lines) // 2, -1), lines[0], strange):
        path.write_text(
            "".join(
                json.dumps(line) + "\n" for line in [*lines[:number], {**lines[number], name: value}, *lines[number:]]
            )
        )
        with suppress(LabError):
            history = load(path)
            assert report.as_json(history, promises.judge(history))
            assert elle_events(history)
            taken += 1
    assert taken > 100


OBSERVED = {"plan": {"level": "observed", "positions": False, "expected": ["read_your_writes"]}}
SHOWN = {**GOOD, "outcome": "ok", "key": "k", "value": "26", "version": 26}


def test_a_history_without_positions_loads_unchanged(tmp_path: Path) -> None:
    (tmp_path / "given.jsonl").write_text(json.dumps(OBSERVED) + "\n" + json.dumps({**SHOWN, "token": "0/16B3748"}))
    given = load(tmp_path / "given.jsonl")
    save(given, tmp_path / "saved.jsonl")
    found = load(tmp_path / "saved.jsonl")
    assert (found.plan, found.operations) == (given.plan, given.operations)
    assert (found.plan.expected, found.operations[0].token) == (("read_your_writes",), "0/16B3748")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({**SHOWN, "position": "1-26"}, "line 2: position: given, although the plan has no positions"),
        ({**SHOWN, "kind": "write", "version": 0}, "line 2: version: missing"),
        ({**SHOWN, "version": -1}, "line 2: version: .*greater than or equal to 0"),
    ],
)
def test_an_operation_without_a_position_needs_a_version(line: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text(json.dumps(OBSERVED) + "\n" + json.dumps(line))
    with pytest.raises(LabError, match=said):
        load(tmp_path / "h.jsonl")


def test_an_unknown_guarantee_cannot_be_expected(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text(json.dumps({"plan": {"level": "observed", "expected": ["luck"]}}))
    with pytest.raises(LabError, match=r"line 1: plan.expected.0: .*'read_your_writes', "):
        load(tmp_path / "h.jsonl")


def test_values_with_line_separators_load_unchanged(tmp_path: Path) -> None:
    operation = Operation(0, 1, "write", "ok", 10, 20, key="a\u2028b\x85c", value="\u2029\r", position=Position(1, 1))
    save(History(Plan("session"), [operation]), tmp_path / "h.jsonl")
    assert load(tmp_path / "h.jsonl").operations == [operation]


def test_an_unreadable_or_unwritable_file_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be read"):
        load(tmp_path / "none")
    with pytest.raises(LabError, match="cannot be saved"):
        save(World(1).history(), tmp_path / "none" / "h")
    with pytest.raises(LabError, match="cannot be exported"):
        export(World(1).history(), tmp_path / "none" / "h")


def test_elle_gets_an_invocation_and_a_completion_of_each_write_and_read() -> None:
    wrote = Operation(0, 1, "write", "ok", 10, 20, key="k", value="a", position=Position(1, 1), version=1)
    doubt = Operation(1, 2, "write", "unknown", 12, 30, key="k", value="b")
    shown = Operation(2, 3, "read", "ok", 25, 28, key="k", value="a", position=Position(1, 1), version=1, node="r")
    empty = Operation(3, 3, "read", "ok", 40, 41, key="x", position=Position(1, 1), node="r")
    found = elle_events(History(Plan("session"), [wrote, doubt, shown, empty]))
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
