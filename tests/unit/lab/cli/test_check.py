"""``lab check``: rejected histories and services."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli import check, main


def test_a_history_without_anything_to_test_is_not_a_success(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    failed = {"index": 0, "session": 0, "kind": "write", "outcome": "fail", "invoked_us": 1, "returned_us": 2}
    (tmp_path / "failed").write_text(json.dumps(failed))
    for name in ("empty", "failed"):
        done = CliRunner().invoke(main, ["check", "--history", str(tmp_path / name)])
        assert (done.exit_code, done.stderr[:6]) == (2, "Error:")


OWN_WRITE_MISSED = (
    {"plan": {"level": "observed", "positions": False}},
    {"kind": "write", "value": "1", "version": 1},
    {"kind": "read", "invoked_us": 3, "returned_us": 4},
)


@pytest.mark.parametrize(
    ("expected", "status", "said"),
    [
        ([], 0, ""),
        (["no_lost_write"], 2, "Error: expected, but not tested: no_lost_write\n"),
        (["real_time"], 1, ""),
        (["no_lost_write", "read_your_writes"], 1, ""),
    ],
)
def test_what_is_expected_of_a_recorded_history_decides(
    expected: list[str], status: int, said: str, tmp_path: Path
) -> None:
    common = {"index": 0, "session": 0, "outcome": "ok", "invoked_us": 1, "returned_us": 2, "key": "k"}
    plan, *operations = OWN_WRITE_MISSED
    lines = [plan, *({**common, **operation} for operation in operations)]
    (tmp_path / "seen.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = [word for guarantee in expected for word in ("--expect", guarantee)]
    done = CliRunner().invoke(main, ["check", "--history", str(tmp_path / "seen.jsonl"), *options])
    assert (done.exit_code, done.stderr) == (status, said)


def test_a_service_other_than_the_client_ends_it_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "call", lambda *_: (200, {"role": "primary"}))
    done = CliRunner().invoke(main, ["check", "--client-url", "http://127.0.0.1:9"])
    assert (done.exit_code, "is not the client service, but 'primary'" in done.stderr) == (2, True)


@pytest.mark.parametrize("options", [["--level", "quorum"], ["--level", "quorum", "--r", "1"], ["--w", "1"]])
def test_r_and_w_belong_to_level_quorum(options: list[str]) -> None:
    done = CliRunner().invoke(main, ["check", "--client-url", "http://127.0.0.1:9", *options])
    assert (done.exit_code, "level quorum requires --r and --w" in done.stderr) == (1, True)
