"""fakeredis with what the log's scripts need besides: the replication ids that INFO shows."""

from typing import Any

import fakeredis
from fakeredis._commands import command
from fakeredis._socket._fakesocket import FakeSocket

REPLACED_NONE = "0" * 40


@command((), (bytes,))
def info(self: Any, *_: bytes) -> bytes:
    ids = getattr(self._server, "replication_ids", ("1" * 40, REPLACED_NONE))
    return "redis_version:7.4.0\r\n# Replication\r\nrole:master\r\nmaster_replid:{}\r\nmaster_replid2:{}\r\n".format(
        *ids
    ).encode()


FakeSocket.info = info  # type: ignore[attr-defined]


def fake_client(server: fakeredis.FakeServer | None = None) -> Any:
    return fakeredis.FakeRedis(server=server or fakeredis.FakeServer(), decode_responses=True, protocol=2)


def restart(client: Any, *, replaced: str = REPLACED_NONE) -> None:
    """Give the server a new replication id, as a restart does, or a promotion if it has ``replaced`` a master."""
    server = client.connection_pool.connection_kwargs["server"]
    current, _ = getattr(server, "replication_ids", ("1" * 40, ""))
    server.replication_ids = (f"{int(current, 16) + 1:040x}", replaced)
