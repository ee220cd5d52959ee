"""A child process: started, watched, restarted, stopped."""

import os
import sys
from pathlib import Path

from lab.local.processes import Child, last_line
from tests.support.until import until


def make_child(tmp_path: Path, script: str, now: list[float]) -> Child:
    log = tmp_path / "child.log"
    return Child("child", [sys.executable, "-c", script], os.environ, log, lambda: now[0])


def test_a_child_that_ends_is_restarted_after_growing_pauses(tmp_path: Path) -> None:
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
        assert child.watch() == "child restarted"
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert child.restarts == 5
    child.wait(5)
    assert child.last_words() == "last words"


def test_a_child_that_had_settled_is_restarted_soon(tmp_path: Path) -> None:
    now = [0.0]
    child = make_child(tmp_path, "", now)
    child.start()
    until(lambda: child.pid is None)
    now[0] = 60.0
    assert child.watch() == "child ended (exit status 0); restarting it in 0.1 s"


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


def test_files_of_the_processes_cannot_be_read_by_others(tmp_path: Path) -> None:
    line = [sys.executable, "-c", f"open({str(tmp_path / 'made')!r}, 'w')"]
    child = Child("child", line, os.environ, tmp_path / "logs" / "child.log", lambda: 0.0)
    child.start()
    child.wait(10)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"logs": 0o700, "child.log": 0o600, "made": 0o600}
