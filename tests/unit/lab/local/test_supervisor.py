"""The local runner, with processes that stand for the lab's own."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socketserver
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from click.testing import CliRunner

from broker.connection import connect
from broker.delay import Fixed
from broker.log import ReplicationLog
from broker.position import START
from broker.registry import Member, Registry, Settings
from lab.cli import main
from lab.errors import LabError
from lab.local import disk, layout, log_server, logs, processes, state, supervisor
from lab.local.layout import Options
from lab.local.state import Claim
from lab.local.supervisor import Lab
from tests.support.logserver import LogServer
from tests.support.ports import base_port
from tests.support.until import until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class Healthy(BaseHTTPRequestHandler):
    """A node of some lab, which is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening(*ports: int) -> Iterator[None]:
    """Healthy nodes that belong to another lab."""
    with ExitStack() as opened:
        for port in ports:
            found = opened.enter_context(ThreadingHTTPServer(("127.0.0.1", port), Healthy))
            opened.callback(found.shutdown)
            Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path / "lab", base_port=base_port(), replicas=1)


def test_health_that_another_lab_answers_is_not_taken_for_the_own(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when two labs begin on the same ports at the same moment, and either finds them free."""
    monkeypatch.setattr(layout, "require_free_ports", lambda _: None)
    monkeypatch.setattr(Lab, "_require_log_server", lambda _: None)
    genuine = Lab._add
    monkeypatch.setattr(Lab, "_add", lambda lab, name, _, environment: genuine(lab, name, SLEEP, environment))
    own = Lab(Options(options.data_dir, options.base_port, replicas=1, redis_url="redis://x"))
    ports = [place.port for place in layout.places(options)]
    try:
        with listening(*ports), pytest.raises(LabError, match=rf"port {options.base_port} is in use"):
            own.start()
        assert own.pids == {}
    finally:
        own.stop()


def test_a_log_server_that_another_lab_started_is_not_taken_for_the_own(
    options: Options, monkeypatch: pytest.MonkeyPatch, servers: Any
) -> None:
    monkeypatch.setattr(layout, "require_free_ports", lambda _: None)
    monkeypatch.setattr(layout, "log_server_port", lambda _: servers("valkey").port)
    monkeypatch.setattr(log_server, "log_server_port", lambda _: servers("valkey").port)
    with pytest.raises(LabError, match=r"the log server does not start: .*port"):
        Lab(options).start()


# -- a full disk ------------------------------------------------------------------------------------------------------


class Idle:
    """A lab whose processes do nothing, and what it has said."""

    def __init__(self, options: Options) -> None:
        self.said: list[str] = []
        self.lab = Lab(options, self.said.append)

    def restarts(self) -> dict[str, int]:
        """How often each process was started again, as everybody can read it."""
        return {node.id: node.restarts for node in state.require(self.lab.data_dir).nodes}

    def kill(self, node: str) -> None:
        """End a process, and wait until it has been started again."""
        pid = self.lab.pids[node]
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.lab.pids.get(node) not in {None, pid})


@pytest.fixture
def idle(options: Options, monkeypatch: pytest.MonkeyPatch) -> Iterator[Idle]:
    monkeypatch.setattr(processes, "_BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(Lab, "_require_log_server", lambda _: None)
    monkeypatch.setattr(Lab, "_await_health", lambda _: None)
    genuine = Lab._add
    monkeypatch.setattr(Lab, "_add", lambda lab, name, _, environment: genuine(lab, name, SLEEP, environment))
    found = Idle(Options(options.data_dir, options.base_port, replicas=1, redis_url="redis://x"))
    found.lab.start()
    until(lambda: len(found.lab.pids) == 4)
    yield found
    found.lab.stop()


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_state_that_cannot_be_written_is_told_once_and_written_later(
    idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Claim, "write", no_space)
        for _ in range(2):
            idle.kill("lab14-primary")
        until(lambda: len(idle.said) >= 5)
    assert idle.restarts()["lab14-primary"] in {0, 2}
    until(lambda: idle.restarts()["lab14-primary"] == 2)
    told = [sentence for sentence in idle.said if "lab.json" in sentence]
    assert told == [f"{idle.lab.data_dir}/lab.json cannot be written: No space left on device; the lab goes on"]


def closed(_: str) -> None:
    raise ValueError("I/O operation on closed file")


def unprintable(_: str) -> None:
    "é".encode("ascii")


@pytest.mark.parametrize("say", [no_space, closed, unprintable])
def test_a_log_that_cannot_be_written_does_not_end_the_lab(
    say: Callable[[str], None], idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle.lab, "_say", say)
    idle.kill("lab14-replica1")
    until(lambda: idle.restarts()["lab14-replica1"] == 1)


def test_a_process_that_cannot_be_started_again_is_tried_again(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = idle.lab.pids["lab14-client"]
    with monkeypatch.context() as full:
        full.setattr("lab.local.private.open_file", no_space)
        os.kill(pid, signal.SIGKILL)
        until(lambda: any("lab14-client cannot be started" in sentence for sentence in idle.said))
    until(lambda: idle.lab.pids.get("lab14-client") not in {None, pid})
    assert any("No space left on device" in sentence for sentence in idle.said)


def test_a_disk_that_is_nearly_full_is_told_before_it_is(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FILES_SECONDS", 0.0)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 10**6))
        until(lambda: idle.said)
        shown = CliRunner().invoke(main, ["status", "--data-dir", str(idle.lab.data_dir)])
    assert shown.exit_code == 3
    assert f"Trouble: the disk of {idle.lab.data_dir} is full: 1.0 MB of 1,000 MB are left" in shown.stdout
    until(lambda: len(idle.said) == 2)
    assert idle.said[0].startswith(f"the disk of {idle.lab.data_dir} is full")
    assert idle.said[1] == "the disk has room again"


def test_each_disk_of_a_data_directory_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = tmp_path / "replicas" / "lab14-replica1"
    full.mkdir(parents=True)
    genuine = Path.stat

    def stat(self: Path, *, follow_symlinks: bool = True) -> Any:
        found = genuine(self, follow_symlinks=follow_symlinks)
        return os.stat_result([*found[:2], -1, *found[3:10]]) if self == full else found

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 0 if path == full else 10**9)
    )
    assert str(disk.shortage(tmp_path)).startswith(f"the disk of {full} is full")


def test_a_lab_on_a_full_disk_is_refused_in_a_sentence(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["up", "--data-dir", str(options.data_dir), "--base-port", str(options.base_port)]
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 0))
        found = CliRunner().invoke(main, line)
    assert (found.exit_code, found.stderr.count("\n")) == (1, 1)
    assert "is full: 0.0 MB of 1 MB are left, and a lab needs 16 MB" in found.stderr
    with monkeypatch.context() as full:
        full.setattr(Claim, "write", no_space)
        found = CliRunner().invoke(main, line)
    assert (found.exit_code, found.stderr.count("\n")) == (1, 1)
    assert "lab.json cannot be written: No space left on device" in found.stderr


def test_a_supervisor_that_fails_says_so(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Lab) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(Lab, "_watch", fail)
    with pytest.raises(LabError, match="the supervisor failed: RuntimeError: unexpected"):
        idle.lab.wait()
    assert idle.lab.pids == {}


def test_logs_are_bounded_while_the_lab_runs(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FILES_SECONDS", 0.0)
    monkeypatch.setattr(logs, "BYTES_MAX", 1000)
    directory = idle.lab.data_dir / "logs"
    for name in ("lab", "lab14-primary"):
        with (directory / f"{name}.log").open("a") as file:
            file.write("x" * 2000)
        until(lambda name=name: (directory / f"{name}.log").stat().st_size == 0)  # type: ignore[misc]
        assert (directory / f"{name}.log.1").stat().st_size == 2000


# -- a log server that takes its time ---------------------------------------------------------------------------------


class Loading:
    """A log server that loads its file for so many questions."""

    def __init__(self, options: Options, questions: int) -> None:
        self.left = questions
        own = self

        class Answer(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(100)
                own.left -= 1
                loading = b"-LOADING Valkey is loading the dataset in memory\r\n"
                self.request.sendall(b"+OK\r\n" + (loading if own.left >= 0 else b"+PONG\r\n"))

        self._server = socketserver.TCPServer(("127.0.0.1", layout.log_server_port(options)), Answer)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Loading:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def patient(options: Options, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab that waits 200 ms for health and for a log server that answers nothing."""
    monkeypatch.setattr(supervisor, "_HEALTHY_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "_SERVER_SECONDS", 0.2)
    monkeypatch.setattr(layout, "require_free_ports", lambda _: None)
    monkeypatch.setattr(processes.Child, "listens_on", lambda *_: True)
    genuine = Lab._add
    monkeypatch.setattr(Lab, "_add", lambda lab, name, _, environment: genuine(lab, name, SLEEP, environment))
    return Lab(options)


def test_a_log_that_is_long_in_loading_leaves_the_nodes_their_time(
    patient: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loading(patient.options, 100) as log_server:
        monkeypatch.setattr(supervisor, "_is_healthy", lambda *_: log_server.left < 0)
        with patient:
            assert state.require(patient.data_dir).ready


def test_a_log_server_that_never_ends_loading_is_named(patient: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LOADING_SECONDS", 0.5)
    with Loading(patient.options, 10**9), pytest.raises(LabError, match=r"the log server .*LOADING"):
        patient.start()


def test_a_log_server_that_answers_nothing_is_named(patient: Lab) -> None:
    with pytest.raises(LabError, match=r"the log server is not ready after 0.2 s: .*refused"):
        patient.start()


def test_a_lab_whose_data_directory_is_removed_stops(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise no command finds it any more, and it holds its ports."""
    monkeypatch.setattr(supervisor, "_FILES_SECONDS", 0.0)
    shutil.rmtree(idle.lab.data_dir)
    with pytest.raises(LabError, match="lab was removed or replaced while the lab ran"):
        idle.lab.wait()
    assert idle.lab.pids == {}


def test_a_lab_whose_data_directory_is_another_one_meanwhile_leaves_that_alone(
    idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle.lab.data_dir.rename(idle.lab.data_dir.with_name("away"))
    other = Claim(idle.lab.data_dir)
    (idle.lab.data_dir / "lab.json").write_text("the other one's")
    monkeypatch.setattr(supervisor, "_FILES_SECONDS", 0.0)
    with pytest.raises(LabError, match="lab was removed or replaced while the lab ran"):
        idle.lab.wait()
    idle.lab.stop()
    assert (idle.lab.data_dir / "lab.json").read_text() == "the other one's"
    other.release()


@pytest.mark.parametrize("option", ["protocol=3", "nosuch=1", "decode_responses=no"])
def test_an_option_of_the_log_servers_url_that_is_not_allowed_is_refused_at_once(options: Options, option: str) -> None:
    port = layout.free_port()  # nothing listens there: it is not asked
    with pytest.raises(LabError, match=f"option '{option.partition('=')[0]}' is not allowed"):
        Lab(Options(options.data_dir, options.base_port, redis_url=f"redis://127.0.0.1:{port}/0?{option}")).start()


def test_a_log_server_that_may_drop_entries_is_refused(options: Options, servers: Callable[[str], LogServer]) -> None:
    url = servers("valkey").url
    connect(url).config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(LabError, match="maxmemory-policy is allkeys-lru"):
            Lab(Options(options.data_dir, options.base_port, redis_url=url)).start()
    finally:
        connect(url).config_set("maxmemory-policy", "noeviction")


def beat(url: str, at_us: int) -> None:
    other = Member("lab14-replica1", "http://r1:1", "http://127.0.0.1:1", START, at_us, 0)
    Registry(connect(url)).heartbeat(other, Settings(Fixed(0), 0))


def test_a_second_lab_on_one_log_server_is_refused(options: Options, servers: Callable[[str], LogServer]) -> None:
    url = servers("valkey").url
    client = connect(url)
    client.flushall()
    started, ended = Event(), Event()

    def beats() -> None:
        while not ended.wait(0.05):
            beat(url, ReplicationLog(client).history.now_us())
            started.set()

    other = Thread(target=beats, daemon=True)
    other.start()
    try:
        assert started.wait(5)
        with pytest.raises(LabError, match="another lab runs on this log server, with lab14-replica1; use another"):
            Lab(Options(options.data_dir, options.base_port, redis_url=url)).start()
    finally:
        ended.set()
        other.join()
        client.flushall()


def test_a_lab_that_was_stopped_just_now_keeps_nobody_from_starting(
    options: Options, servers: Callable[[str], LogServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_HEARTBEAT_SECONDS", 0.2)
    url = servers("valkey").url
    connect(url).flushall()
    beat(url, ReplicationLog(connect(url)).history.now_us())
    Lab(Options(options.data_dir, options.base_port, redis_url=url))._require_log_server()
    connect(url).flushall()
