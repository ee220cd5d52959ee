"""Configuration files of log servers and Sentinels: written when a lab starts, and rewritten by these processes."""

import os
import re
from pathlib import Path

from lab.local.layout import NAMESPACE

MASTER_NAME = NAMESPACE
DOWN_AFTER_MS = 2000  # at 1000, Sentinel's ping period, a promoted server is taken for a dead one
_QUORUM = 2
_FAILOVER_TIMEOUT_MS = 2000
# The users of replicas and Sentinels: switching them off isolates a server from both, but not from the lab's nodes.
REPLICA, SENTINEL = "replica", "sentinel"
_RIGHTS = {
    REPLICA: "+psync +replconf +ping",
    SENTINEL: "allchannels +multi +exec +ping +info +role +slaveof +replicaof +failover +subscribe +publish"
    " +config|rewrite +client|setname +client|kill +script|kill",
}


def server(port: int, directory: Path, password: str, fsync: str = "everysec", master_port: int | None = None) -> str:
    """A log server; with ``master_port`` a replica of the server there."""
    lines = [
        *_process(port, directory, password),
        *(f"user {name} on >{password} {rights}" for name, rights in _RIGHTS.items()),
        f"masteruser {REPLICA}",
        f"masterauth {password}",
        "appendonly yes",
        f"appendfsync {fsync}",
        'save ""',
        "maxmemory-policy noeviction",
        "repl-diskless-sync-delay 0",
        *([f"replicaof 127.0.0.1 {master_port}"] if master_port is not None else []),
    ]
    return "\n".join(lines) + "\n"


def sentinel(port: int, directory: Path, password: str, master_port: int) -> str:
    lines = [
        *_process(port, directory, password),
        f"sentinel sentinel-pass {password}",
        f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master_port} {_QUORUM}",
        f"sentinel auth-user {MASTER_NAME} {SENTINEL}",
        f"sentinel auth-pass {MASTER_NAME} {password}",
        f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {MASTER_NAME} {_FAILOVER_TIMEOUT_MS}",
    ]
    return "\n".join(lines) + "\n"


def watched(text: str) -> tuple[int, int] | None:
    """The epoch and the port of the master in a Sentinel's file."""
    port = re.search(rf"^sentinel monitor {MASTER_NAME} \S+ (\d+) ", text, re.MULTILINE)
    epoch = re.search(rf"^sentinel config-epoch {MASTER_NAME} (\d+)", text, re.MULTILINE)
    return (int(epoch[1]) if epoch else 0, int(port[1])) if port else None


def port_of(text: str) -> int | None:
    return int(found[1]) if (found := re.search(r"^port (\d+)", text, re.MULTILINE)) else None


def _process(port: int, directory: Path, password: str) -> list[str]:
    return [f"port {port}", "bind 127.0.0.1", f"dir {_quoted(directory)}", "daemonize no", f"requirepass {password}"]


def _quoted(path: Path) -> str:
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(path))
    return f'"{"".join(plain)}"'
