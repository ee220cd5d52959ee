"""``lab probe`` on real servers of PostgreSQL when something fails: status, sentence, what is left, who is connected.

The fixture requires that no connection of a probe stays open.
"""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import cast

import psycopg
import pytest
from click.testing import Result

from tests.contract.probe.test_postgresql import SCHEMA, on_small_disk, prepared
from tests.support.databases.postgresql import Server, Servers
from tests.support.delaying_proxy import DelayingProxy
from tests.support.disks import full
from tests.support.probing import command, interrupted
from tests.support.until import until

pytestmark = [
    pytest.mark.xdist_group("postgresql"),
    pytest.mark.integration,
    pytest.mark.parametrize("postgresql", ["wheel"], indirect=True),
]
OF_PROBES = "FROM pg_stat_activity WHERE application_name = 'lab_probe'"


def line(primary: str, *replicas: Server) -> list[str]:
    return ["postgresql", "--primary", primary, *(word for one in replicas for word in ("--replica", one.address()))]


def numbers(server: Server) -> int | None:
    with suppress(psycopg.errors.UndefinedTable):
        return cast("int | None", server.sql("SELECT max(number) FROM lab_probe.numbers")[0][0])
    return None


def failing(servers: Servers, act: Callable[[], object], *arguments: str) -> str:
    """Return the sentence of a run that something ends."""
    server = servers.primary
    done = interrupted(act, lambda: numbers(server), *arguments, "--seconds", "30", "--rate", "50")
    assert done.exit_code == 1, done.output
    assert done.stderr == ""
    sentence = " ".join(done.stdout.partition("\n\n")[0].split()).partition("The run ended after ")[2]
    assert server.sql(SCHEMA) == [(0,)]
    return sentence.partition(f". {arguments[2]}: ")[0]


# -- before a run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--json",), ("--dry-run",), ("--sessions", "2")])
def test_a_replica_that_cannot_be_reached_is_one_sentence(postgresql: Servers, options: tuple[str, ...]) -> None:
    absent = "host=127.0.0.1 port=1 user=prober dbname=postgres"
    require_refused(
        postgresql,
        command(*line(postgresql.primary.address()), "--replica", absent, *options),
        f"{absent}: connection failed: .* Connection refused",
    )


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        ("guarded", "wrong", 'password authentication failed for user "guarded"'),
        ("powerless", None, "as an administrator: GRANT CREATE ON DATABASE postgres TO powerless"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--sessions", "2")])
def test_a_primary_that_refuses_is_one_sentence(
    postgresql: Servers, user: str, password: str | None, said: str, options: tuple[str, ...]
) -> None:
    arguments = (*line(postgresql.primary.address(user), postgresql.fast), *options)
    require_refused(postgresql, command(*arguments, password=password), f"{said}$")


def test_a_standby_given_as_the_primary_is_one_sentence(postgresql: Servers) -> None:
    require_refused(postgresql, command(*line(postgresql.fast.address(), postgresql.slow)), "it is a standby, or")


@pytest.mark.needs("postgresql")
def test_another_store_is_one_sentence(postgresql: Servers, postgresql_servers: Callable[[str], Servers]) -> None:
    other = postgresql_servers("debian").fast
    require_refused(
        postgresql, command(*line(postgresql.primary.address(), other)), "is not a replica of .*: it belongs to another"
    )


def test_a_second_probe_is_refused_and_leaves_the_first_one_alone(postgresql: Servers) -> None:
    with prepared(postgresql.primary) as first:
        done = command(*line(postgresql.primary.address(), postgresql.fast))
        assert done.exit_code == 1
        assert "another probe is running, or one could not remove it; if none is running" in done.stderr
        first.write("k", 1)
        first.remove()


def require_refused(servers: Servers, done: Result, said: str) -> None:
    assert done.exit_code == 1, done.output
    *before, sentence = done.stderr.splitlines()
    assert (before, sentence[:7]) == ([], "Error: ")
    assert re.search(said, sentence)
    assert servers.primary.sql(SCHEMA) == [(0,)]


# -- during a run ------------------------------------------------------------------------------------------------------


def test_a_promotion_ends_the_run(postgresql: Servers) -> None:
    with postgresql.standby("promoted") as third:
        promote = lambda: third.sql("SELECT pg_promote()")  # noqa: E731
        said = failing(postgresql, promote, *line(postgresql.primary.address(), third))
        assert f"{third.address()} became a primary during the run; if it is a store of its own now" in said
        assert command(*line(third.address()), "--remove").exit_code == 0
        assert third.sql(SCHEMA) == [(0,)]


@pytest.mark.parametrize("options", [(), ("--sessions", "9")])
def test_a_killed_standby_ends_the_run(postgresql: Servers, options: tuple[str, ...]) -> None:
    with postgresql.standby(f"killed{len(options)}") as third:
        arguments = (*line(postgresql.primary.address(), third), *options, "--seconds", "30", "--rate", "50")
        done = interrupted(third.process.stop, lambda: numbers(postgresql.primary), *arguments)
        shown = " ".join((done.stderr if options else done.stdout).split())
        assert done.exit_code == 1, done.output
        assert f"{third.address()}: " in shown
        assert "reads failed, the last one with: " in shown
        assert shown.count(third.address()) == (1 if options else 2), "named twice in the sentence"
    assert postgresql.primary.sql(SCHEMA) == [(0,)]


def test_a_primary_that_becomes_read_only_ends_the_run_and_is_cleaned_up(postgresql: Servers) -> None:
    def set_read_only() -> None:
        postgresql.primary.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        postgresql.primary.sql("SELECT pg_reload_conf()")

    try:
        said = failing(postgresql, set_read_only, *line(postgresql.primary.address(), postgresql.fast))
    finally:
        writable = f"{postgresql.primary.address('postgres')} options='-c default_transaction_read_only=off'"
        with psycopg.connect(writable, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
    assert "it accepts no writes" in said


def test_a_schema_that_is_removed_ends_the_run(postgresql: Servers) -> None:
    def remove() -> None:
        postgresql.primary.sql("DROP SCHEMA lab_probe CASCADE")

    said = failing(postgresql, remove, *line(postgresql.primary.address(), postgresql.fast))
    assert "it was removed during the run" in said


@pytest.mark.needs("mount")
def test_a_full_disk_is_one_sentence(postgresql: Servers) -> None:
    with postgresql.lone("filled") as server, on_small_disk(server) as path, full(path):
        address = server.address("postgres")
        require_refused(postgresql, command(*line(address, postgresql.fast)), f"{address}: its disk is full$")
        assert server.sql(SCHEMA) == [(0,)]


@pytest.mark.parametrize("end", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_dropped_connection_and_a_canceled_query_are_counted(postgresql: Servers, end: str) -> None:
    def drop() -> None:
        for server in (postgresql.primary, postgresql.fast):
            server.sql(f"SELECT {end}(pid) {OF_PROBES}")

    arguments = (*line(postgresql.primary.address(), postgresql.fast), "--seconds", "1", "--rate", "50")
    done = interrupted(drop, lambda: numbers(postgresql.primary), *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    writes = [word for word in ("50 of 50 writes", "49 of 50 writes") if word in " ".join(done.stdout.split())]
    assert writes
    assert end == "pg_cancel_backend" or writes == ["49 of 50 writes"]
    assert postgresql.primary.sql(SCHEMA) == [(0,)]


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ctrl_c_at_any_moment_leaves_nothing(postgresql: Servers, seed: int) -> None:
    """Each statement takes 50 ms, so that creation and removal take long enough to be interrupted."""
    with DelayingProxy.running(postgresql.primary.port, 0.05) as proxy:
        address = postgresql.primary.address().replace(str(postgresql.primary.port), str(proxy.port))
        with started(*line(address, postgresql.fast), "--writes", "5") as process:
            until(postgresql.primary.probes, 30)
            with suppress(subprocess.TimeoutExpired):
                process.wait(Random(seed).uniform(0, 1.5))
            process.send_signal(signal.SIGINT)
            shown, errors = process.communicate(timeout=30)
        assert "p99 of the window" in shown or errors == "\nAborted!\n"
        assert process.returncode in {0, 1}
    assert postgresql.primary.sql(SCHEMA) == [(0,)]


def test_what_a_killed_probe_leaves_behind_is_removed(postgresql: Servers) -> None:
    with started(*line(postgresql.primary.address(), postgresql.fast)) as process:
        until(lambda: numbers(postgresql.primary), 30)
        process.kill()
    assert postgresql.primary.sql(SCHEMA) == [(1,)]
    done = command(*line(postgresql.primary.address()), "--remove")
    assert (done.exit_code, done.output) == (0, "Removed.\n")
    assert postgresql.primary.sql(SCHEMA) == [(0,)]


@contextmanager
def started(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-m", "lab", "probe", *arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
