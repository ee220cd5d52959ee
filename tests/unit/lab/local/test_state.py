"""The owner of a data directory, the process that runs a lab in it, and which state is trusted."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.cli import main
from lab.errors import LabError
from lab.local import detached, files, state
from lab.local.processes import Child
from lab.local.state import Claim, LabState, NodeState, this_process
from lab.local.supervisor import Lab, Options

STATE = LabState(
    *this_process(), True, "lab14", 8000, "redis://x", [NodeState("lab14-primary", "primary", "http://x", 1, 0)]
)


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Claim]:
    """A lab that runs in the test's directory; an untrusted state is not waited for."""
    monkeypatch.setattr(state, "_FIRST_STATE_SECONDS", 0.0)
    found = Claim(tmp_path)
    yield found
    found.release()


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    claim.write(STATE)
    assert state.read(tmp_path) == STATE
    with pytest.raises(LabError, match="runs in"):
        Claim(tmp_path)
    claim.release()
    assert state.read(tmp_path) is None
    with pytest.raises(LabError, match="no lab runs"):
        state.require(tmp_path)
    Claim(tmp_path).release()


def test_the_state_of_a_dead_supervisor_is_taken_over(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    claim.write(STATE)
    os.close(claim._file)  # as the kernel does when a process ends
    assert state.read(tmp_path) is None
    Claim(tmp_path).release()


def test_a_directory_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot be used"):
        Claim(tmp_path / "file" / "lab")


def test_a_process_that_got_the_number_of_a_killed_supervisor_is_not_ended(claim: Claim, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander, ExitStack() as ended:
        ended.callback(bystander.kill)
        claim.write(replace(STATE, pid=bystander.pid))
        with pytest.raises(LabError, match="belongs to a lab that has ended"):
            detached.stop(tmp_path)
        assert bystander.poll() is None


@pytest.mark.parametrize("pid", [-1, 0, 2**22 + 1, 2**40])
def test_a_number_without_a_process_is_not_signaled(pid: int, claim: Claim, tmp_path: Path) -> None:
    claim.write(replace(STATE, pid=pid))
    with pytest.raises(LabError, match="belongs to a lab that has ended"):
        detached.stop(tmp_path)


def test_the_state_left_by_a_killed_supervisor_is_not_trusted_while_a_new_lab_starts(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text(json.dumps(asdict(replace(STATE, started="earlier"))))
    claim = Claim(tmp_path)
    writer = threading.Timer(0.05, claim.write, [STATE])
    writer.start()
    assert state.read(tmp_path) == STATE
    writer.join()
    claim.release()


DAMAGED: dict[str, Any] = {
    "empty": b"",
    "cut off": json.dumps(asdict(STATE)).encode()[:-9],
    "not JSON": b"pid = 7",
    "not text": b"\xff\xfe\x00",
    "an array": b"[]",
    "null": b"null",
    "a number": b"7",
    "deep": b"[" * 200_000,
    "long": b" " * 2**21 + b"{}",
    "without pid": {"pid": None},
    "pid as text": {"pid": "7"},
    "pid as bool": {"pid": True},
    "without start": {"started": None},
    "nodes as number": {"nodes": 7},
    "nodes of null": {"nodes": [None]},
    "nodes of an earlier version": {"nodes": [{"id": "lab14-primary"}]},
}


@pytest.mark.parametrize("command", ["status", "down", "watch", "stream"])
@pytest.mark.parametrize("form", DAMAGED)
def test_a_damaged_state_is_a_one_line_error(form: str, command: str, claim: Claim, tmp_path: Path) -> None:
    content = DAMAGED[form]
    if isinstance(content, dict):
        content = json.dumps({k: v for k, v in (asdict(STATE) | content).items() if v is not None}).encode()
    (tmp_path / "lab.json").write_bytes(content)
    found = CliRunner().invoke(main, [command, "--data-dir", str(tmp_path)])
    assert isinstance(found.exception, SystemExit), "and no other exception"
    assert found.exit_code == 1
    assert "lab.json is damaged, or of another version of the lab" in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["directory", "pipe", "link"])
def test_a_state_that_is_not_a_regular_file_is_not_read(kind: str, claim: Claim, tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        (tmp_path / "elsewhere").write_text(json.dumps(asdict(STATE)))
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LabError, match=r"lab\.json cannot be read"):
        state.read(tmp_path)


def test_a_reader_does_not_prevent_a_lab_from_starting(tmp_path: Path) -> None:
    Claim(tmp_path).release()
    looker = os.open(tmp_path / "lab.lock", os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    assert not state.is_claimed(tmp_path), "readers do not exclude each other"
    end = threading.Timer(0.05, os.close, [looker])
    end.start()
    Claim(tmp_path).release()
    end.join()


def test_a_starting_lab_is_found_before_any_of_its_processes_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Looked(Exception):
        pass

    def look(_: object) -> None:
        found = state.require(tmp_path / "lab")
        assert (found.pid, found.ready) == (os.getpid(), False)
        assert {node.pid for node in found.nodes} == {None}
        shown = CliRunner().invoke(main, ["status", "--data-dir", str(tmp_path / "lab")])
        assert (shown.exit_code, "The lab is starting." in shown.output) == (3, True)
        raise Looked

    monkeypatch.setattr("lab.local.layout.require_free_ports", look)
    with pytest.raises(Looked):
        Lab(Options(tmp_path / "lab", base_port=1)).start()
    assert state.read(tmp_path / "lab") is None
    assert (tmp_path / "lab").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "lab").iterdir()] == [0o600]


# -- other users ------------------------------------------------------------------------------------------------------
@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that another user has prepared, with a lab that seems to run in it."""
    claim = Claim(tmp_path / "foreign")
    claim.write(STATE)
    owner = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    return tmp_path / "foreign"


@pytest.mark.parametrize("command", ["status", "down", "up --detach", "up"])
def test_a_directory_of_another_user_is_refused(command: str, foreign: Path) -> None:
    before = sorted(foreign.rglob("*"))
    name, *options = command.split()
    found = CliRunner().invoke(main, [name, "--data-dir", str(foreign), *options])
    assert (found.exit_code, found.stderr.count("\n")) == (1, 1)
    assert "belongs to user" in found.stderr
    assert sorted(foreign.rglob("*")) == before


def test_a_world_writable_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(LabError, match=r"every user can write to .*chmod 700"):
        Claim(tmp_path / "open")


@pytest.mark.parametrize("name", ["lab.lock", "lab.new", "logs/lab.log", "logs/child.log"])
def test_a_link_is_not_followed_and_its_target_is_unchanged(name: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    directory = tmp_path / "lab"
    (directory / "logs").mkdir(parents=True)
    (directory / name).symlink_to(target)
    with pytest.raises((LabError, OSError)):
        start_everything(directory)
    assert target.read_text() == "precious"


def start_everything(directory: Path) -> None:
    claim = Claim(directory)
    try:
        claim.write(STATE)
    finally:
        claim.release()
    child = Child("child", ["true"], os.environ, directory / "logs" / "child.log", lambda: 0.0)
    child.start()
    child.wait(5)
    detached.start(directory, ["--version"])


def test_files_that_an_earlier_version_made_readable_for_all_become_private(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir(mode=0o755)
    (tmp_path / "lab.lock").write_text("")
    Claim(tmp_path).release()
    files.subdirectory(tmp_path / "logs")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"logs": 0o700, "lab.lock": 0o600}


def test_a_lab_that_ends_without_output_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(LabError, match=r"the lab ended with exit status 1, and .*lab\.log is empty"):
        detached.start(tmp_path, [])
