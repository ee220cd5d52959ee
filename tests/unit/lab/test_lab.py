"""Layout, children, state and logs of a local lab."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from random import Random

import pytest

from lab.errors import LabError
from lab.local import layout, logs
from lab.local.layout import Options
from lab.local.processes import Child, last_line
from tests.support.until import until


def test_the_client_keeps_its_port_whatever_the_number_of_replicas() -> None:
    for replicas in (1, 2, 3, 20):
        places = layout.places(Options(base_port=9000, replicas=replicas))
        ports = {place.node_id: place.port for place in places}
        assert (ports["lab14-primary"], ports["lab14-client"], ports["lab14-worker"]) == (9000, 9003, 9078)
        assert len(set(ports.values())) == replicas + 3
        assert layout.log_server_port(Options(base_port=9000)) not in ports.values()


def test_the_first_two_replicas_are_late_by_500_and_1500_ms() -> None:
    delays = [place.delay_ms for place in layout.places(Options(replicas=4)) if place.role == "replica"]
    assert delays == [500, 1500, 1000, 1000]


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=rf"\b{port}\b.* in use"):
            layout.require_free_ports(Options(base_port=port - 1))


def test_a_free_block_is_found_and_the_preferred_one_taken_where_it_is_free() -> None:
    bases = {layout.free_base_port(Random(seed)) for seed in range(50)}
    assert max(bases) + layout.BLOCK < 32_768, "where the system takes the ports of outgoing connections from"
    base = layout.free_base_port(Random(1))
    assert layout.free_base_port(Random(2), preferred=[base]) == base
    with socket.create_server(("127.0.0.1", base + 2)):
        assert layout.free_base_port(Random(2), preferred=[base]) != base


def make_child(tmp_path: Path, script: str, now: list[float]) -> Child:
    log = tmp_path / "child.log"
    return Child("child", [sys.executable, "-c", script], os.environ, log, lambda: now[0])


def test_a_child_that_ends_is_started_again_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    now = [0.0]
    child = make_child(tmp_path, "print('last words')", now)
    child.start()
    pauses = []
    for _ in range(5):
        until(lambda: child.pid is None)
        ended = child.watch()
        assert ended is not None
        assert "exit status 0" in ended
        pauses.append(float(ended.split(" in ")[1].removesuffix(" s")))
        now[0] += pauses[-1] - 0.01
        assert child.watch() is None
        now[0] += 0.02
        assert child.watch() == "child started again"
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert child.restarts == 5
    child.wait(5)
    assert child.last_words() == "last words"


def test_a_child_that_had_settled_is_started_again_soon(tmp_path: Path) -> None:
    now = [0.0]
    child = make_child(tmp_path, "", now)
    child.start()
    until(lambda: child.pid is None)
    now[0] = 60.0
    assert child.watch() == "child ended (exit status 0); starting it again in 0.1 s"


def test_a_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    child = make_child(tmp_path, script, [0.0])
    child.start()
    until(lambda: child.last_words() == "ready")
    child.terminate()
    child.wait(0.1)
    assert child.pid is None


def test_the_log_of_a_child_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_bytes(b"x" * (10 * 2**20 + 1))
    child = make_child(tmp_path, "print('new')", [0.0])
    child.start()
    child.wait(5)
    assert last_line(log) == "new"
    assert (tmp_path / "child.log.1").stat().st_size > 10 * 2**20


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
    """A log file has 1,000 bytes at the most."""
    monkeypatch.setattr(logs, "BYTES_MAX", 1000)
    return 1000


def test_a_log_is_begun_anew_while_a_process_writes_to_it(small: int, tmp_path: Path) -> None:
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


def test_a_log_is_bounded_also_where_there_is_no_room_for_the_older_one(
    small: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = tmp_path / "child.log"
    log.write_bytes(b"x" * (small + 1))
    monkeypatch.setattr("shutil.copyfileobj", no_space)
    logs.limit(log)
    assert log.read_bytes() == b""


@pytest.mark.parametrize("how", ["begun anew", "emptied", "replaced"])
def test_a_log_is_followed_on_whatever_becomes_of_it(how: str, small: int, tmp_path: Path) -> None:
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
            if how == "begun anew":
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
