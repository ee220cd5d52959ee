"""What describes an experiment on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.experiments.command import read


def test_a_kind_with_changes() -> None:
    changes = ("writes=5", "rate=2.5", "settings.lab14-replica2.model={kind: exponential, mean_ms: 80}")
    assert read("windows", changes) == {
        "kind": "windows",
        "writes": 5,
        "rate": 2.5,
        "settings": {"lab14-replica2": {"model": {"kind": "exponential", "mean_ms": 80}}},
    }


def test_a_file_with_changes(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("kind: sweep\nparameter: rate\nvalues: [1, 2]\nexperiment:\n  kind: windows\n")
    found = read(str(path), ("experiment.writes=7",))
    assert found["experiment"] == {"kind": "windows", "writes": 7}
    assert found["values"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        (None, (), "neither windows, staleness, levels, sweep nor a file"),
        ("[1, 2", (), "is not YAML"),
        ("- a list\n", (), "has to be a mapping"),
        ("!!python/object/apply:os.system ['true']", (), "is not YAML"),
        ("kind: windows\n", ("writes",), "path=value"),
        ("kind: windows\n", ("=5",), "path=value"),
        ("kind: windows\n", ("kind.more=5",), "kind is not a mapping"),
        ("kind: windows\n", ("writes=[1",), "is not YAML"),
    ],
)
def test_what_describes_none_is_refused_with_a_sentence(
    tmp_path: Path, text: str | None, changes: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "file.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LabError, match=said):
        read(str(path), changes)
