"""The local runner, with placeholders for the lab's processes."""

import errno
import os
import shutil
import signal
import socketserver
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner

from lab.cli import main
from lab.errors import LabError
from lab.local import existing, layout, logs, processes, state, supervisor
from lab.local.layout import LogPlace, Options
from lab.local.state import Claim
from lab.local.supervisor import Lab
from tests.support.http import serving
from tests.support.ports import base_port
from tests.support.until import until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@contextmanager
def listening(*ports: int) -> Iterator[None]:
    """Healthy nodes that belong to another lab."""
    with ExitStack() as opened:
        for port in ports:
            opened.enter_context(serving(lambda _: (200, b""), port))
        yield


def sleeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that do nothing take the place of the lab's."""
    genuine = Lab._add
    monkeypatch.setattr(Lab, "_add", lambda lab, name, _, environment: genuine(lab, name, SLEEP, environment))


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path / "lab", base_port=base_port(), replicas=1)


def test_a_health_response_of_another_lab_is_not_mistaken_for_its_own(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two labs that start on the same ports at the same time can both find them free."""
    monkeypatch.setattr(layout, "require_free_ports", lambda _: None)
    monkeypatch.setattr(existing, "require_usable", lambda *_: None)
    sleeping(monkeypatch)
    own = Lab(Options(options.data_dir, options.base_port, replicas=1, redis_url="redis://x"))
    ports = [place.port for place in layout.places(options)]
    try:
        with listening(*ports), pytest.raises(LabError, match=rf"port {options.base_port} is in use"):
            own.start()
        assert own.pids == {}
    finally:
        own.stop()


def test_the_log_server_of_another_lab_is_not_mistaken_for_its_own(
    options: Options, monkeypatch: pytest.MonkeyPatch, servers: Any
) -> None:
    monkeypatch.setattr(layout, "require_free_ports", lambda _: None)
    taken = LogPlace("lab14-redis", "log", servers("valkey").port, "log")
    monkeypatch.setattr(layout, "log_places", lambda _: [taken])
    with pytest.raises(LabError, match=r"lab14-redis does not start: .*port"):
        Lab(options).start()


# -- a full disk ------------------------------------------------------------------------------------------------------
class Idle:
    """A lab whose processes do nothing, and its reported events."""

    def __init__(self, options: Options) -> None:
        self.reports: list[str] = []
        self.lab = Lab(options, self.reports.append)

    def restarts(self) -> dict[str, int]:
        return {node.id: node.restarts for node in state.require(self.lab.data_dir).nodes}

    def kill(self, node: str) -> None:
        pid = self.lab.pids[node]
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.lab.pids.get(node) not in {None, pid})


@pytest.fixture
def idle(options: Options, monkeypatch: pytest.MonkeyPatch) -> Iterator[Idle]:
    monkeypatch.setattr(existing, "require_usable", lambda *_: None)
    monkeypatch.setattr(Lab, "_await_health", lambda lab: lab._all_started.wait(10))
    sleeping(monkeypatch)
    found = Idle(replace(options, redis_url="redis://x", restart_pauses_seconds=(0.0,)))
    found.lab.start()
    yield found
    found.lab.stop()


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_state_that_cannot_be_written_is_reported_once_and_written_later(
    idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Claim, "write", no_space)
        for _ in range(2):
            idle.kill("lab14-primary")
        until(lambda: len(idle.reports) >= 5)
    assert idle.restarts()["lab14-primary"] in {0, 2}
    until(lambda: idle.restarts()["lab14-primary"] == 2)
    reports = [sentence for sentence in idle.reports if "lab.json" in sentence]
    assert reports == [
        f"{idle.lab.data_dir}/lab.json cannot be written: No space left on device; the lab keeps running"
    ]


def closed(_: str) -> None:
    raise ValueError("I/O operation on closed file")


def unprintable(_: str) -> None:
    "é".encode("ascii")


@pytest.mark.parametrize("say", [no_space, closed, unprintable])
def test_a_log_that_cannot_be_written_does_not_end_the_lab(
    say: Callable[[str], None], idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle.lab, "_on_event", say)
    idle.kill("lab14-replica1")
    until(lambda: idle.restarts()["lab14-replica1"] == 1)


def test_a_failed_restart_of_a_process_is_repeated(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = idle.lab.pids["lab14-client"]
    with monkeypatch.context() as full:
        full.setattr("lab.local.files.open_file", no_space)
        os.kill(pid, signal.SIGKILL)
        until(lambda: any("lab14-client cannot be started" in sentence for sentence in idle.reports))
    until(lambda: idle.lab.pids.get("lab14-client") not in {None, pid})
    assert any("No space left on device" in sentence for sentence in idle.reports)


def test_a_disk_that_is_nearly_full_is_reported_early(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FILES_SECONDS", 0.0)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 10**6))
        until(lambda: idle.reports)
        shown = CliRunner().invoke(main, ["status", "--data-dir", str(idle.lab.data_dir)])
    assert shown.exit_code == 3
    assert f"Trouble: the disk of {idle.lab.data_dir} is full: 1.0 MB of 1,000 MB are left" in shown.stdout
    until(lambda: len(idle.reports) == 2)
    assert idle.reports[0].startswith(f"the disk of {idle.lab.data_dir} is full")
    assert idle.reports[1] == "the disk has free space again"


def test_a_lab_on_a_full_disk_is_refused_with_a_message(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["up", "--data-dir", str(options.data_dir), "--base-port", str(options.base_port)]
    monkeypatch.setattr(Claim, "write", no_space)
    full = "is full: 0.0 MB of 1 MB are left, and a lab needs 16 MB"
    for said in ("lab.json cannot be written: No space left on device", full):
        found = CliRunner().invoke(main, line)
        assert (found.exit_code, found.stderr.count("\n")) == (1, 1)
        assert said in found.stderr
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 0))


def test_a_failed_supervisor_is_reported(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(idle.lab, "_watch", fail)  # not that of another lab in this process
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
class Loading(socketserver.BaseRequestHandler):
    """A log server that responds to ``left`` requests that it is loading its file."""

    left = 0

    def handle(self) -> None:
        self.request.recv(100)
        Loading.left -= 1
        loading = b"-LOADING Valkey is loading the dataset in memory\r\n"
        self.request.sendall(b"+OK\r\n" + (loading if Loading.left >= 0 else b"+PONG\r\n"))


@contextmanager
def loading(options: Options, requests: int) -> Iterator[None]:
    Loading.left = requests
    with socketserver.TCPServer(("127.0.0.1", layout.log_places(options)[0].port), Loading) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@pytest.fixture
def patient(options: Options, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab that waits 200 ms for health and for a log server that does not answer."""
    monkeypatch.setattr(supervisor, "_HEALTHY_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "_SERVER_SECONDS", 0.2)
    monkeypatch.setattr(layout, "require_free_ports", lambda _: None)
    monkeypatch.setattr(processes.Child, "listens_on", lambda *_: True)
    sleeping(monkeypatch)
    return Lab(options)


def test_a_log_that_loads_slowly_does_not_count_against_the_nodes(
    patient: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loading(patient.options, 100):
        monkeypatch.setattr(supervisor, "_is_healthy", lambda *_: Loading.left < 0)
        with patient:
            assert state.require(patient.data_dir).ready


def test_a_log_server_that_never_finishes_loading_is_named(patient: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LOADING_SECONDS", 0.5)
    with loading(patient.options, 10**9), pytest.raises(LabError, match=r"lab14-redis .*LOADING"):
        patient.start()


def test_a_log_server_that_does_not_answer_is_named(patient: Lab) -> None:
    with pytest.raises(LabError, match=r"lab14-redis is not ready after 0.2 s: .*refused"):
        patient.start()


def test_a_lab_whose_data_directory_is_removed_stops(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise no command could find it, and it would keep its ports."""
    monkeypatch.setattr(supervisor, "_FILES_SECONDS", 0.0)
    shutil.rmtree(idle.lab.data_dir)
    with pytest.raises(LabError, match="lab was removed or replaced while the lab ran"):
        idle.lab.wait()
    assert idle.lab.pids == {}


def test_a_lab_whose_data_directory_was_replaced_leaves_the_new_one_alone(
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


# -- temporary labs ---------------------------------------------------------------------------------------------------
@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options of the labs that were started; each fails."""
    found: list[Options] = []

    def start(lab: Lab) -> None:
        found.append(lab.options)
        raise LabError("it did not start")

    monkeypatch.setattr(Lab, "start", start)
    return found


def test_a_temporary_lab_starts_on_other_ports_if_one_is_taken_concurrently(
    tries: list[Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "taken_ports", lambda options: [options.base_port])
    with pytest.raises(LabError, match="it did not start"), Lab.temporary(replicas=1):
        pass
    assert len({options.data_dir for options in tries}) == len(tries) == 3
    assert {options.replicas for options in tries} == {1}


def test_a_temporary_lab_that_fails_for_another_reason_is_not_tried_again(tries: list[Options]) -> None:
    with pytest.raises(LabError, match="it did not start"), Lab.temporary():
        pass
    assert len(tries) == 1
    assert not tries[0].data_dir.parent.exists()
