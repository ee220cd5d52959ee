"""A graded program: started, killed, stopped, watched; whatever it does, nothing of it is left."""

import os
import re
import signal
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lab.grade import keeper
from lab.grade.life import Limits
from lab.grade.program import Misbehaved, Program, environment_of
from lab.local.layout import free_port
from tests.support.processes import foreground
from tests.support.until import until

Make = Callable[..., Program]
FOREVER = "import time; time.sleep(60)"
# A signal just before a sleep is handled after it.
EXIT_7 = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    print(1, flush=True)
    while True:
        time.sleep(0.01)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('no', flush=True); " + FOREVER
DAEMON = f"""
    import os, sys
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, ["daemon of " + os.environ["LAB_DATA_DIR"], "-c", {FOREVER!r}], {{}})
        os._exit(0)
    os.wait()
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Programs in Python whose processes are all gone at the end of the test."""
    made: list[Program] = []

    def build(script: str, **options: object) -> Program:
        line = [sys.executable, "-S", "-c", textwrap.dedent(script)]
        made.append(Program(line, {"LAB_DATA_DIR": str(tmp_path)}, tmp_path / "logs" / "program.log", **options))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for program in made:
        program.close()
    assert not processes_of(tmp_path)


def is_daemon(process: psutil.Process, data_dir: Path) -> bool:
    return process.cmdline()[:1] == [f"daemon of {data_dir}"]


def has_daemon(data_dir: Path) -> bool:
    return any(process.is_running() and is_daemon(process, data_dir) for process in processes_of(data_dir))


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Every process of the test's program, also one without its environment, unless it is a zombie."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LAB_DATA_DIR") == str(data_dir) or is_daemon(process, data_dir):
                found.append(process)
        except psutil.Error:
            continue
    return found


def listener(port: int, host: str = "127.0.0.1") -> str:
    return f"import socket, time; s = socket.create_server(({host!r}, {port})); time.sleep(60)"


def printed(tmp_path: Path) -> str:
    return (tmp_path / "logs" / "program.log").read_text()


def test_it_runs_until_it_is_killed_and_again(make: Make, tmp_path: Path) -> None:
    port = free_port()
    program = make("import os; print('runs in', os.getcwd(), flush=True); " + listener(port))
    for _ in range(2):
        program.start()
        program.wait_until_listening(port, 5)
        assert program.ended is None
        assert program.pid is not None
        assert os.getsid(0) not in (os.getsid(program.pid), os.getsid(psutil.Process(program.pid).ppid()))
        program.kill()
        assert [program.pid, program.ended] == [None, -signal.SIGKILL]
        assert not processes_of(tmp_path)
    program.check()
    assert printed(tmp_path) == f"runs in {os.getcwd()}\n" * 2


def test_it_stops_at_sigterm(make: Make) -> None:
    program = make(EXIT_7)
    program.start()
    until(lambda: program._life.last_words() == "its last line: 1")
    program.suspend()
    program.stop()
    assert program.ended == 7


def test_it_is_suspended_and_resumed(make: Make) -> None:
    program = make(FOREVER)
    program.start()
    assert program.pid is not None
    main = psutil.Process(program.pid)
    program.suspend()
    until(lambda: main.status() == psutil.STATUS_STOPPED)
    program.resume()
    until(lambda: main.status() != psutil.STATUS_STOPPED)


def test_one_that_ignores_sigterm_is_killed(make: Make) -> None:
    program = make(STUBBORN, stop_seconds=0.2)
    program.start()
    until(lambda: program._life.last_words() == "its last line: no")
    with pytest.raises(Misbehaved, match=r"^the program ignored SIGTERM for 0.2 s; its last line: no$"):
        program.stop()
    assert program.ended == -signal.SIGKILL


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("import sys; print('a\\x1b[31m\\n\\n'); sys.exit(3)", r"exit status 3\) .* port \d+; its last line: a·\[31m"),
        ("raise SystemExit('x' * 1000)", r"exit status 1\) .*; its last line: x{199}…"),
        ("", r"exit status 0\) before it listened on port \d+; it printed nothing"),
        ("import os; os.kill(os.getpid(), 9)", r"killed by SIGKILL\) before"),
        ("import os; os.kill(os.getpid(), 40)", r"killed by signal 40\) before"),
    ],
)
def test_one_that_exits_at_once(make: Make, script: str, problem: str) -> None:
    program = make(script)
    program.start()
    with pytest.raises(Misbehaved, match=rf"^the program ended \({problem}"):
        program.wait_until_listening(free_port(), 5)


def test_one_that_never_listens(make: Make) -> None:
    port = free_port()
    program = make(FOREVER)
    program.start()
    with pytest.raises(Misbehaved, match=rf"did not listen on 127.0.0.1:{port}, the port in LAB_PORT, within 0.1 s"):
        program.wait_until_listening(port, 0.1)


def test_one_that_listens_on_another_port(make: Make) -> None:
    port, other = free_port(), free_port()
    program = make(listener(other))
    program.start()
    program.wait_until_listening(other, 5)
    with pytest.raises(Misbehaved, match=rf"listens on 127.0.0.1:{other}, but not on 127.0.0.1:{port}, the port"):
        program.wait_until_listening(port, 0.1)


def test_a_port_that_another_process_listens_on_does_not_count(make: Make) -> None:
    program = make(FOREVER)
    program.start()
    with socket.create_server(("127.0.0.1", 0)) as foreign, pytest.raises(Misbehaved, match="did not listen"):
        program.wait_until_listening(foreign.getsockname()[1], 0.1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_listening_on_all_addresses_is_enough(make: Make, host: str) -> None:
    port = free_port()
    family = "family=socket.AF_INET6, dualstack_ipv6=True" if host == "::" else ""
    program = make(listener(port).replace(f"('127.0.0.1', {port})", f"({host!r}, {port}), {family}"))
    program.start()
    program.wait_until_listening(port, 5)


def test_a_daemon_is_found_and_killed(make: Make, tmp_path: Path) -> None:
    program = make(DAEMON)
    program.start()
    until(lambda: program.ended == 0)
    until(lambda: has_daemon(tmp_path))
    until(lambda: not processes_of(tmp_path))
    with pytest.raises(
        Misbehaved, match=r"ended \(exit status 0\) but left 1 process \(.*, process \d+\) running; it must"
    ):
        program.check()


def test_a_daemon_does_not_survive_a_kill(make: Make, tmp_path: Path) -> None:
    program = make(DAEMON + f"    {FOREVER}")
    program.start()
    until(lambda: has_daemon(tmp_path))
    program.kill()
    assert not processes_of(tmp_path)
    program.check()


def test_the_processes_of_a_killed_keeper_are_found_by_their_environment(make: Make, tmp_path: Path) -> None:
    program = make(FOREVER)
    program.start()
    assert program.pid is not None
    psutil.Process(program.pid).parent().kill()  # type: ignore[union-attr]
    until(lambda: not processes_of(tmp_path))


def test_one_with_too_many_processes(make: Make) -> None:
    script = f"""
        import os
        for _ in range(8):
            if os.fork() == 0:
                break
        {FOREVER}
    """
    program = make(script, limits=Limits(processes=5))
    program.start()
    with pytest.raises(Misbehaved, match=r"^the program had \d processes; the limit is 5; it printed nothing$"):
        until(program.check, 5)


def test_one_that_takes_too_much_memory(make: Make) -> None:
    program = make(f"used = b'x' * (60 * 2**20); {FOREVER}", limits=Limits(memory_bytes=50 * 2**20))
    program.start()
    with pytest.raises(
        Misbehaved, match=r"^the program used \d\d MiB of memory; the limit is 50 MiB; it printed nothing$"
    ):
        until(program.check, 5)
    assert program._life.gone.wait(5)


def test_one_that_prints_without_end(make: Make, tmp_path: Path) -> None:
    program = make("while True: print('y' * 99)", limits=Limits(output_bytes=2**20))
    program.start()
    with pytest.raises(Misbehaved, match=r"^the program printed more than 1 MiB; its last line: y+$"):
        until(program.check, 5)
    assert len(printed(tmp_path)) == 2**20


def test_its_log_is_bounded(make: Make, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "program.log").write_bytes(b"x" * (10 * 2**20 + 1))
    program = make("print('new')")
    program.start()
    until(lambda: program.ended == 0)
    assert printed(tmp_path) == "new\n"


def test_everything_ends_when_the_grader_is_killed(tmp_path: Path) -> None:
    grader = f"""
        import sys, time
        from pathlib import Path
        from lab.grade.program import Program
        data_dir = {str(tmp_path)!r}
        program = Program([sys.executable, "-c", {STUBBORN!r}], {{"LAB_DATA_DIR": data_dir}}, Path(data_dir) / "log")
        program.start()
        print("started", flush=True)
        time.sleep(60)
    """
    with foreground([sys.executable, "-c", textwrap.dedent(grader)]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert len(processes_of(tmp_path)) == 2
        process.kill()
        until(lambda: not processes_of(tmp_path))


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ([], "command not found: it is empty"),
        (["no-such-command"], "command not found: no-such-command"),
        (["./missing.py"], "command not found: ./missing.py"),
        (
            ["./plain.py"],
            r"./plain.py is not executable; run `chmod \+x ./plain.py`, or write its interpreter before it",
        ),
        (["run.py"], "run.py is not in PATH; write ./run.py for the file in this directory"),
        (["."], "is a directory"),
    ],
)
def test_a_command_that_cannot_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], problem: str
) -> None:
    (tmp_path / "plain.py").write_text("")
    (tmp_path / "run.py").touch(0o700)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Misbehaved, match=problem):
        Program(command, {"LAB_DATA_DIR": str(tmp_path)}, tmp_path / "log")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("echo", r"Exec format error; a script must start with a line"),
        ("#!/no/such/shell\n", "No such file or directory"),
    ],
)
def test_a_script_that_cannot_be_started(tmp_path: Path, content: str, problem: str) -> None:
    script = tmp_path / "script"
    script.touch(0o700)
    script.write_text(content)
    program = Program([str(script)], {"LAB_DATA_DIR": str(tmp_path)}, tmp_path / "log")
    with pytest.raises(Misbehaved, match=rf"^{re.escape(str(script))} cannot be started: {problem}"):
        program.start()
    program.close()


def test_the_environment_has_no_other_variables_of_the_lab() -> None:
    contract = {"LAB_DATA_DIR": "/data", "LAB_PORT": "5001"}
    assert environment_of(
        {"PATH": "/bin", "LAB_PORT": "1", "LAB_ADMIN_TOKEN": "x", "TMPDIR": "/elsewhere"}, contract
    ) == {
        "PATH": "/bin",
        "LAB_DATA_DIR": "/data",
        "LAB_PORT": "5001",
        "TMPDIR": "/data",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_processes_are_found_by_the_marker_in_their_environment() -> None:
    with foreground([sys.executable, "-c", FOREVER], env={keeper.MARKER: "one"}) as process:
        until(lambda: [found.pid for found in keeper.marked("one")] == [process.pid])
        assert not keeper.marked("two")
        keeper.kill_all(lambda: keeper.marked("one"), lambda: process.poll() is None)
        assert process.returncode == -signal.SIGKILL
