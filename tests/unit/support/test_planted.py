"""The programs for ``lab grade``: the examples, and those that are each wrong in one way."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.planted import FAILS_FIRST

ROOT = Path(__file__).parents[3]


@pytest.fixture
def correct(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "examples/replicas"))
    import correct

    yield correct
    del sys.modules["correct"]


@pytest.fixture
def store(correct: Any, tmp_path: Path) -> Iterator[Any]:
    opened = correct.Store(tmp_path)
    with closing(opened.db()):
        yield opened


def entry(correct: Any, name: str, op: str = "set", value: str = "1", key: str = "k") -> Any:
    return correct.Entry(name, correct.position_of(name), op, key, value, 0)


def test_every_planted_program_has_the_level_that_it_fails() -> None:
    programs = {path.stem for path in (ROOT / "tests/support/planted").glob("*.py")} - {"__init__", "lesson"}
    assert programs == FAILS_FIRST.keys()
    assert len(programs) == 10


@pytest.mark.parametrize(
    ("name", "op", "value", "connects"),
    [
        ("3-41", "set", "1", True),
        ("3-42", "set", "1", False),
        ("4-1", "set", "1", False),
        ("5-0", "epoch", "", True),
        ("4-40", "epoch", '"3-40"', True),
        ("4-39", "epoch", '"3-39"', False),  # this replica is ahead
        ("4-41", "epoch", '"3-41"', False),  # this replica is behind
    ],
)
def test_the_example_recognizes_what_follows_and_what_is_missing(
    correct: Any, name: str, op: str, value: str, connects: bool
) -> None:
    replica = correct.Replica(SimpleNamespace(position=(3, 40)), None, "lab14", "graded")
    assert replica.connects(entry(correct, name, op, value)) is connects


def test_the_example_reads_a_key_at_the__store(correct: Any, store: Any) -> None:
    store.apply([entry(correct, "1-0", "epoch", ""), entry(correct, "1-1"), entry(correct, "1-2", key="other")])
    assert store.get("k") == ((1, 2), "1", 1)
    store.apply([entry(correct, "2-2", "epoch", '"1-2"'), entry(correct, "2-3", "delete", "")])
    assert (store.get("k"), store.get("other")) == (((2, 3), None, None), ((2, 3), "1", 2))
    store.apply([entry(correct, "3-0", "epoch", "")])
    assert store.get("other") == ((3, 0), None, None)
    assert store.read() == store.position == (3, 0)


@pytest.mark.parametrize(("key", "status"), [("k", 200), ("a%2Fb", 200), ("gone", 404)])
def test_the_example_serves_keys_as_they_are_quoted(correct: Any, store: Any, key: str, status: int) -> None:
    store.apply([entry(correct, "1-1", value='{"a": 1}', key="k"), entry(correct, "1-2", value='{"a": 1}', key="a/b")])
    answer = correct.make_app(store).test_client().get(f"/data/{key}")
    assert (answer.status_code, cast("Any", answer.json)["position"]) == (status, "1-2")
    assert cast("Any", answer.json).get("value") == ({"a": 1} if status == 200 else None)
