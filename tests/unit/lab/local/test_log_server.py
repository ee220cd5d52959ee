"""The log servers and Sentinels that a lab starts: their configuration, and which server becomes master."""

import stat
from pathlib import Path

import pytest

from lab.local import configuration
from lab.local.layout import Options
from lab.local.log_server import LogProcess, prepare

PASSWORD = "a-password"


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path, base_port=9000, ha=True)


def started(options: Options, password: str = PASSWORD) -> dict[str, LogProcess]:
    return {process.place.name: process for process in prepare(options, options.data_dir, password)}


def master(processes: dict[str, LogProcess]) -> str:
    """The server that is no replica, which all others and the Sentinels name."""
    servers = {name: one for name, one in processes.items() if one.place.role == "log"}
    (found,) = (name for name, one in servers.items() if "\nreplicaof " not in one.read())
    port = servers[found].place.port
    for one in processes.values():
        assert f" 127.0.0.1 {port}" in one.read() or one is servers[found]
    return found


def has_file(process: LogProcess) -> None:
    """Let the server have written something."""
    directory = process.directory / "appendonlydir"
    directory.mkdir(exist_ok=True)
    (directory / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")


def learned(process: LogProcess, master_port: int, epoch: int) -> None:
    """Let a Sentinel have rewritten its file after a failover."""
    text = configuration.sentinel(process.place.port, process.directory, PASSWORD, master_port)
    process.configuration.write_text(f"{text}sentinel config-epoch lab14 {epoch}\n")


def test_a_lab_with_one_server_has_no_sentinels(tmp_path: Path) -> None:
    (process,) = prepare(Options(tmp_path, base_port=9000), tmp_path, PASSWORD)
    assert (process.place.name, process.place.port) == ("lab14-redis", 9079)
    assert "\nreplicaof " not in process.read()
    assert "--sentinel" not in process.command


def test_three_servers_and_three_sentinels_have_a_file_each(options: Options) -> None:
    found = started(options)
    assert {one.place.port for one in found.values()} == {9079, 9077, 9076, 9075, 9074, 9073}
    assert [name for name, one in found.items() if "--sentinel" in one.command] == [
        f"lab14-sentinel{n}" for n in (1, 2, 3)
    ]
    assert master(found) == "lab14-redis1"
    for one in found.values():
        assert f"port {one.place.port}\n" in one.read()
        assert f"requirepass {PASSWORD}\n" in one.read()


def test_the_password_is_in_private_files_only(options: Options) -> None:
    for one in started(options).values():
        assert stat.S_IMODE(one.configuration.stat().st_mode) == 0o600
        assert PASSWORD not in " ".join(one.command)


@pytest.mark.parametrize("ha", [False, True])
def test_fsync_is_the_same_on_every_server(tmp_path: Path, *, ha: bool) -> None:
    found = started(Options(tmp_path, fsync="always", ha=ha))
    texts = [one.read() for one in found.values() if one.place.role == "log"]
    assert texts
    assert all("appendonly yes\nappendfsync always\n" in text for text in texts)


def test_the_last_master_stays_master_on_other_ports(options: Options) -> None:
    first = started(options)
    for one in first.values():
        if one.place.role == "log":
            has_file(one)
    for number, (port, epoch) in enumerate(((9079, 0), (9076, 2), (9077, 1)), 1):
        learned(first[f"lab14-sentinel{number}"], port, epoch)
    assert master(started(Options(options.data_dir, base_port=9500, ha=True))) == "lab14-redis3"


def test_a_server_without_a_file_does_not_replace_those_of_others(options: Options) -> None:
    first = started(options)
    has_file(first["lab14-redis2"])
    learned(first["lab14-sentinel1"], 9076, 1)
    assert master(started(options)) == "lab14-redis2"


def test_the_first_server_has_the_log_of_a_lab_with_one_server(options: Options) -> None:
    one = Options(options.data_dir, base_port=9000)
    for process in started(options).values():
        if process.place.role == "log":
            has_file(process)
    learned(started(options)["lab14-sentinel1"], 9076, 1)
    single = started(one)["lab14-redis"]
    assert single.directory == started(options)["lab14-redis1"].directory
    assert master(started(options)) == "lab14-redis1"


@pytest.mark.parametrize("name", ['with "quotes"', "back\\slash", "spä ce", "new\nline"])
def test_any_directory_can_be_written_to_a_configuration(name: str, tmp_path: Path) -> None:
    text = configuration.server(1, tmp_path / name, PASSWORD)
    (line,) = (line for line in text.splitlines() if line.startswith("dir "))
    quoted = line.removeprefix("dir ").strip('"').encode("ascii")
    assert quoted.decode("unicode_escape").encode("latin-1") == str(tmp_path / name).encode()
