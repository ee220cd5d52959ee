"""Descriptions of experiments on the command line, and Ctrl-C while one is submitted."""

import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.cli import experiment, main
from lab.cli.experiment import read
from lab.errors import LabError


def test_a_kind_with_changes() -> None:
    changes = ("writes=5", "rate=2.5", 'settings.lab14-replica2.model={"kind": "exponential", "mean_ms": 80}')
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
        (None, (), "No such file or directory; an experiment is windows, staleness, levels, quorum, sweep or a file"),
        ("[1, 2", (), "is not YAML"),
        ("- a list\n", (), "must be a mapping"),
        ("!!python/object/apply:os.system ['true']", (), "is not YAML"),
        ("kind: windows\n", ("writes",), "'writes' is not of the form name=value, such as rate=20"),
        ("kind: windows\n", ("=5",), "not of the form name=value"),
        ("kind: windows\n", ("kind.more=5",), "kind is not a mapping"),
        ("kind: windows\n", ("rate=1e999",), "--set rate: a double cannot hold the number 1e999"),
        ("a: &a [x]\nb: [*a, *a]\n", (), "line 2: aliases are not allowed"),
        ("<<: {kind: windows}\n<<: {kind: levels}\n", (), "line 2: a mapping has the same name twice"),
        ("kind: windows\nkind: levels\n", (), "line 2: a mapping has the same name twice"),
        ("? [1, 2]\n: 3\n", (), "line 1: a name in a mapping is not a string"),
        ("kind: windows\nat: !!timestamp 2026-01-01\n", (), "line 2: tags are not allowed"),
        ("kind: windows\nrate: 1e999\n", (), "line 2: 1e999 is too large a number"),
        ("kind: windows\nrate: " + "9" * 9999, (), "line 2: 9+ is too large a number"),
        ("kind: windows\n\tx: 1\n", (), "line 2: .*character"),
        ("kind: windows\nb: \x1b\n", (), "is not YAML"),
        ("--- a\n--- b\n", (), "line 2: .*single document"),
        ("x: " + "[" * 50_000, (), "nested too deep"),
        ("#" * 300_000, (), "more than the allowed 262,144 bytes"),
    ],
)
def test_an_invalid_description_is_rejected_with_a_message(
    tmp_path: Path, text: str | None, changes: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "file.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LabError, match=said):
        read(str(path), changes)


def test_a_value_is_json_or_else_plain_text() -> None:
    changes = (
        "a=no", "b=2026-01-01", 'c="5"', "d=null", "e=-1.5e3", "f=010", "g=", "h=true", "i=[1",
        'j=["session"]', "k=a=b",
    )  # fmt: skip
    found = read("windows", tuple(f"values.{change}" for change in changes))["values"]
    assert found == {
        "a": "no", "b": "2026-01-01", "c": "5", "d": None, "e": -1500.0, "f": "010", "g": "", "h": True, "i": "[1",
        "j": ["session"], "k": "a=b",
    }  # fmt: skip


def test_a_value_in_a_file_has_its_apparent_type(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("{a: no, b: 2026-01-01, c: 12:30:45, d: '5', e: ~, f: -1.5e3, g: 010, h: , i: true, j: 1_000}")
    assert read(str(path), ()) == {
        "a": "no", "b": "2026-01-01", "c": "12:30:45", "d": "5", "e": None, "f": -1500.0, "g": 10, "h": None,
        "i": True, "j": "1_000",
    }  # fmt: skip


def test_aliases_cost_nothing(tmp_path: Path) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 30)]
    path = tmp_path / "file.yaml"
    path.write_text("l0: &l0 x\n" + "\n".join(levels))
    with pytest.raises(LabError, match="line 2: aliases are not allowed"):
        read(str(path), ())


def test_ctrl_c_before_the_id_is_known_cancels_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    canceled: list[str] = []

    def post(_url: str, _spec: object, _timeout: float) -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        return {"id": "e1"}

    def ask(method: str, url: str, *_: object) -> dict[str, Any]:
        canceled.append(f"{method} {url.rpartition('/')[2]}")
        return {}

    def get(*_: object) -> dict[str, Any]:
        state = "cancelled" if canceled else "running"
        return {"kind": "windows", "state": state, "progress": 0.0, "reason": "it was canceled", "result": None}

    for name, replacement in {"post": post, "ask": ask, "get": get}.items():
        monkeypatch.setattr(experiment.client, name, replacement)
    shown = CliRunner().invoke(main, ["experiment", "run", "windows", "--client-url", "http://127.0.0.1:1"])
    assert (canceled, shown.exit_code) == (["DELETE e1"], 1), shown.output
    assert "cancelled: it was canceled" in shown.output
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
