"""Log files: bounded, and followed through rotation and removal."""

import errno
import os
from pathlib import Path

import pytest

from lab.local import logs


def test_new_lines_are_followed_only_when_complete_and_without_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "lab14-primary.log"
    path.parent.mkdir()
    path.write_text("old\n")
    assert list(logs.last_lines([path], 5)) == [("lab14-primary", "old")]
    steps = iter(["half", " a line\n\x1b[31mred\n"])

    def write(_: float) -> None:
        with path.open("a") as file:
            file.write(next(steps))

    found = logs.follow([path], write)
    assert [next(found), next(found)] == [("lab14-primary", "half a line"), ("lab14-primary", "·[31mred")]
    found.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(logs, "BYTES_MAX", 1000)
    return 1000


def test_a_log_is_rotated_while_a_process_writes_to_it(small: int, tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    with log.open("ab", buffering=0) as written:
        written.write(b"x" * small)
        logs.limit(log)
        assert log.stat().st_size == small
        written.write(b"y")
        logs.limit(log)
        assert log.read_bytes() == b""
        written.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "child.log.1").read_bytes() == b"x" * small + b"y"
    assert (tmp_path / "child.log.1").stat().st_mode & 0o777 == 0o600


def test_a_log_is_bounded_even_without_room_for_the_older_one(
    small: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = tmp_path / "child.log"
    log.write_bytes(b"x" * (small + 1))
    monkeypatch.setattr("shutil.copyfileobj", no_space)
    logs.limit(log)
    assert log.read_bytes() == b""


@pytest.mark.parametrize("how", ["limited", "emptied", "replaced"])
def test_a_log_is_followed_whatever_happens_to_it(how: str, small: int, tmp_path: Path) -> None:
    path = tmp_path / "lab14-primary.log"
    path.with_name(path.name + ".1").write_bytes(b"z" * 5000 + b"\nof an earlier time\n")
    path.write_bytes(b"x" * small + b"\n")

    def append(text: str) -> None:
        with path.open("a") as file:
            file.write(text)

    def turn(_: float) -> None:
        turns.append(how)
        if len(turns) == 1:
            append("before\nhal")
        elif len(turns) == 2:
            append("f a line\n")
            if how == "limited":
                logs.limit(path)
            elif how == "emptied":
                path.write_bytes(b"")
            else:
                path.rename(tmp_path / "away")
            append("after\n")

    turns: list[str] = []
    found = logs.follow([path], turn)
    wanted = ["before", "after"] if how == "emptied" else ["before", "half a line", "after"]
    assert [next(found)[1] for _ in wanted] == wanted
    found.close()


def test_a_line_without_end_is_followed_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "lab14-primary.log"
    path.write_bytes(b"")
    found = logs.follow([path], lambda _: path.write_bytes(b"x" * 200_000) and None)
    assert 0 < len(next(found)[1]) < 100_000
    found.close()
