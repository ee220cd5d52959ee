"""PgBouncer in transaction mode: consecutive statements of a client can use different connections to the server."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.support.databases.postgresql import Server
from tests.support.databases.processes import Process, directory
from tests.support.ports import base_port

_SETTINGS = """[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
"""


@contextmanager
def pooled(server: Server) -> Iterator[int]:
    """The port of a pool of two connections to the server."""
    with directory() as made:
        port, users, settings = base_port(), made / "users.txt", made / "pgbouncer.ini"
        users.write_text('"prober" ""\n')
        settings.write_text(_SETTINGS.format(server_port=server.port, port=port, users=users))
        process = Process(["/usr/sbin/pgbouncer", str(settings)], made / "pgbouncer.log")
        process.launch()
        try:
            process.wait_until(lambda: _answers(port))
            yield port
        finally:
            process.stop()


def _answers(port: int) -> bool:
    try:
        psycopg.connect(host="127.0.0.1", port=port, user="prober", dbname="postgres", connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
