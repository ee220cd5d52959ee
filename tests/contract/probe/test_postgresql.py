"""The probe's PostgreSQL target against real servers: a primary, a standby, and one that is 200 ms late."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from lab.probe.postgresql import PostgreSQL, node
from lab.probe.target import NotNow, Shown, TargetError
from tests.support.databases.pgbouncer import pooled
from tests.support.databases.postgresql import DELAY_SECONDS, PASSWORD, Server, Servers
from tests.support.disks import disk, full
from tests.support.probing import (
    failing,
    require_calibrated,
    require_numbers,
    require_one_probe,
    require_sentence,
    shows,
)
from tests.support.until import until

pytestmark = [pytest.mark.xdist_group("postgresql"), pytest.mark.integration]
SCHEMA = "SELECT count(*) FROM pg_namespace WHERE nspname = 'lab_probe'"

BLOCKED = "SELECT pid FROM pg_stat_activity WHERE application_name = 'lab_probe' AND wait_event_type = 'Lock'"


def at(server: Server, user: str = "prober") -> "closing[PostgreSQL]":
    return closing(node(server.address(user), None))


@contextmanager
def prepared(server: Server) -> Iterator[PostgreSQL]:
    with at(server) as primary:
        primary.prepare()
        yield primary


@contextmanager
def paused(standby: Server) -> Iterator[None]:
    standby.sql("SELECT pg_wal_replay_pause()")
    until(lambda: standby.sql("SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
    try:
        yield
    finally:
        standby.sql("SELECT pg_wal_replay_resume()")


def test_numbers_are_written_read_from_every_node_and_removed(postgresql: Servers) -> None:
    with prepared(postgresql.primary) as primary, at(postgresql.slow) as slow, at(postgresql.fast) as fast:
        require_numbers(primary, slow, fast)
        assert postgresql.primary.sql(SCHEMA) == [(0,)]


def test_a_read_is_stale_until_the_standby_applies_the_write(postgresql: Servers) -> None:
    with prepared(postgresql.primary) as primary, at(postgresql.fast) as fast:
        primary.write("k", 1)
        until(lambda: shows(fast, "k", 1))
        with paused(postgresql.fast):
            primary.write("k", 2)
            assert fast.read(["k"]) == Shown({"k": 1}, is_replica=True)
        until(lambda: shows(fast, "k", 2))


def test_the_slow_standby_shows_a_write_when_the_delay_after_its_commit_has_passed(postgresql: Servers) -> None:
    """Known delays calibrate the probe."""
    with prepared(postgresql.primary) as primary, at(postgresql.slow) as slow:
        primary.write("k", 200)  # a number of this test only
        committed = "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM lab_probe.numbers"
        ((committed_at,),) = postgresql.primary.sql(committed)
        until(lambda: shows(slow, "k", 200))
        assert time.time() >= committed_at + DELAY_SECONDS


def test_a_standby_that_has_not_applied_the_creation_shows_no_number(postgresql: Servers) -> None:
    with paused(postgresql.fast), prepared(postgresql.primary) as primary, at(postgresql.fast) as fast:
        primary.write("k", 1)
        assert fast.read(["k"]) == Shown({}, is_replica=True)


def test_repeatable_read_without_autocommit_never_sees_the_write(postgresql: Servers) -> None:
    """The mutant of the target: a transaction keeps the snapshot of its first statement."""
    with prepared(postgresql.primary) as primary, at(postgresql.fast) as fast:
        primary.write("k", 1)
        until(lambda: shows(fast, "k", 1))
        with psycopg.connect(postgresql.fast.address(), autocommit=False) as trapped:
            trapped.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            select = "SELECT number FROM lab_probe.numbers"
            assert trapped.execute(select).fetchall() == [(1,)]
            primary.write("k", 2)
            until(lambda: shows(fast, "k", 2))
            assert trapped.execute(select).fetchall() == [(1,)]
            trapped.commit()
            assert trapped.execute(select).fetchall() == [(2,)]


def test_every_bracket_ends_after_the_delay(postgresql: Servers) -> None:
    """The delay counts from the commit, which is after the sending."""
    nodes = (node(server.address(), None) for server in (postgresql.primary, postgresql.slow, postgresql.fast))
    require_calibrated(*nodes, DELAY_SECONDS)
    assert postgresql.primary.sql(SCHEMA) == [(0,)]


# -- what exists already, and rights -----------------------------------------------------------------------------------


def test_a_foreign_schema_is_refused_and_kept(postgresql: Servers) -> None:
    postgresql.primary.sql("CREATE SCHEMA lab_probe; CREATE TABLE lab_probe.numbers (mine int)")
    with at(postgresql.primary) as primary:
        for change in (primary.prepare, primary.remove):
            with pytest.raises(TargetError, match="lab_probe exists and was not created by a probe; rename it"):
                change()
    assert postgresql.primary.sql("SELECT mine FROM lab_probe.numbers") == []


def test_a_schema_of_another_run_is_refused_and_can_be_removed(postgresql: Servers) -> None:
    with prepared(postgresql.primary) as first, at(postgresql.primary) as second:
        require_one_probe(first, second)


def test_what_was_added_to_the_schema_is_not_removed(postgresql: Servers) -> None:
    with prepared(postgresql.primary) as primary:
        primary.write("k", 1)
        postgresql.primary.sql("CREATE TABLE lab_probe.other (mine int)")
        with pytest.raises(TargetError, match="cannot drop schema lab_probe because other objects depend on it"):
            primary.remove()
        assert primary.read(["k"]) == Shown({"k": 1}, is_replica=False), "half removed"


def test_a_missing_privilege_is_reported_with_the_grant_that_gives_it(postgresql: Servers) -> None:
    grant = "GRANT CREATE ON DATABASE postgres TO powerless"
    with at(postgresql.primary, "powerless") as primary:
        assert primary.describe().missing == (grant,)
        with pytest.raises(
            TargetError, match=f"permission denied for database postgres; as an administrator: {grant}$"
        ):
            primary.prepare()
        postgresql.primary.sql(grant)
        try:
            assert primary.describe().missing == ()
            primary.prepare()
            primary.write("k", 1)
            primary.remove()
        finally:
            postgresql.primary.sql(grant.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))


def test_a_replica_is_read_as_a_user_without_any_grant(postgresql: Servers) -> None:
    with prepared(postgresql.primary) as primary, at(postgresql.fast, "powerless") as replica:
        assert replica.describe().missing == ()
        primary.write("k", 1)
        until(lambda: shows(replica, "k", 1))


def test_a_description_has_every_statement_and_changes_nothing(postgresql: Servers) -> None:
    with at(postgresql.primary) as primary, at(postgresql.fast) as replica:
        described = "\n".join(primary.describe().statements)
        for part in (
            "CREATE SCHEMA lab_probe",
            "INSERT INTO",
            "LEFT JOIN",
            "DROP SCHEMA lab_probe",
            "system_identifier",
        ):
            assert part in described
        assert not any("CREATE" in statement for statement in replica.describe().statements)
    assert postgresql.primary.sql(SCHEMA) == [(0,)]


@pytest.mark.parametrize(
    ("change", "password", "reason"),
    [
        (
            "user=guarded",
            None,
            "no password supplied; give the password in LAB_PROBE_PASSWORD, PGPASSFILE, or a service",
        ),
        ("user=guarded", "wrong-password", 'password authentication failed for user "guarded"'),
        ("user=absent", None, 'role "absent" does not exist'),
        ("dbname=absent", None, 'database "absent" does not exist'),
        ("port=1", None, "Connection refused"),
        ("host=absent.invalid", None, "failed to resolve host|could not translate host name"),
    ],
)
def test_a_failure_to_connect_is_one_sentence(
    postgresql: Servers, change: str, password: str | None, reason: str
) -> None:
    with closing(node(f"{postgresql.primary.address()} {change}", password)) as target:
        require_sentence(target, reason)


def test_a_password_is_given_beside_the_address(postgresql: Servers) -> None:
    with closing(node(postgresql.primary.address("guarded"), PASSWORD)) as target:
        assert PASSWORD not in target.name
        assert target.settings().identity


# -- what goes wrong during a run --------------------------------------------------------------------------------------


def test_a_standby_is_refused_as_primary(postgresql: Servers) -> None:
    with prepared(postgresql.primary), at(postgresql.fast) as standby:
        postgresql.wait_for_replay(postgresql.fast)
        with pytest.raises(TargetError, match="accepts no writes: it is a standby, or"):
            standby.remove()
    postgresql.primary.sql("DROP SCHEMA lab_probe CASCADE")
    postgresql.wait_for_replay(postgresql.fast)
    with at(postgresql.fast) as standby, pytest.raises(TargetError, match="accepts no writes: it is a standby, or"):
        standby.prepare()


def test_a_primary_that_becomes_read_only_ends_the_run(postgresql: Servers) -> None:
    with prepared(postgresql.primary):
        postgresql.primary.sql("ALTER ROLE prober SET default_transaction_read_only = on")
        with at(postgresql.primary) as later, pytest.raises(TargetError, match="accepts no writes"):
            later.write("k", 1)


def test_a_canceled_read_and_a_dropped_connection_fail_once(postgresql: Servers) -> None:
    with prepared(postgresql.primary) as primary:
        primary.write("k", 1)
        with psycopg.connect(postgresql.primary.address("postgres")) as blocking:
            blocking.execute("LOCK TABLE lab_probe.numbers")
            for end, said in (
                ("SELECT pg_cancel_backend(%s)", "canceling"),
                ("SELECT pg_terminate_backend(%s)", "terminating connection"),
            ):
                with failing(lambda: primary.read(["k"])) as failures:
                    until(lambda: postgresql.primary.sql(BLOCKED))
                    postgresql.primary.sql(end, *postgresql.primary.probes())
                assert said in failures[0]
        assert primary.read(["k"]).numbers == {"k": 1}
        (pid,) = postgresql.primary.probes()
        postgresql.primary.sql("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(NotNow, match="terminating connection"):
            primary.write("k", 2)
        primary.write("k", 2)
        assert primary.read(["k"]).numbers == {"k": 2}


def test_a_read_that_conflicts_with_replication_fails_once(postgresql: Servers) -> None:
    """40001: replay removes rows that the read's snapshot still needs."""
    with prepared(postgresql.primary) as primary, at(postgresql.fast) as fast:
        postgresql.fast.sql("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        postgresql.fast.sql("SELECT pg_reload_conf()")
        primary.write("k", 1)
        for statement in (
            "ALTER TABLE lab_probe.numbers RENAME TO rows",
            "CREATE VIEW lab_probe.numbers AS SELECT key, number FROM lab_probe.rows, pg_sleep(20)",
            "GRANT SELECT ON lab_probe.numbers TO PUBLIC",
        ):
            postgresql.primary.sql(statement)
        postgresql.wait_for_replay(postgresql.fast)
        with failing(lambda: fast.read(["k"])) as failures:
            until(lambda: postgresql.fast.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
            postgresql.primary.sql("UPDATE lab_probe.rows SET number = 2")
            postgresql.primary.sql("VACUUM lab_probe.rows")
        assert "conflict with recovery" in failures[0]
        postgresql.primary.sql("DROP VIEW lab_probe.numbers; ALTER TABLE lab_probe.rows RENAME TO numbers")
        until(lambda: shows(fast, "k", 2))


def test_a_read_without_an_answer_has_a_bound(postgresql: Servers) -> None:
    address = postgresql.primary.address()
    with prepared(postgresql.primary) as primary, closing(PostgreSQL(address, None, answer_seconds=0.3)) as hasty:
        primary.write("k", 1)
        with psycopg.connect(postgresql.primary.address("postgres")) as blocking:
            blocking.execute("LOCK TABLE lab_probe.numbers")
            with pytest.raises(NotNow, match=r"no answer within 0\.3 s"):
                hasty.read(["k"])
        assert hasty.read(["k"]).numbers == {"k": 1}


def test_a_promotion_is_seen_by_the_next_read_and_a_killed_standby_fails(postgresql: Servers) -> None:
    with postgresql.standby("third") as third, at(third) as replica:
        assert replica.read(["k"]).is_replica
        third.sql("SELECT pg_promote()")
        assert not replica.read(["k"]).is_replica
        third.process.stop()
        for _ in range(2):
            with pytest.raises(NotNow):
                replica.read(["k"])


@pytest.mark.needs("mount")
def test_a_full_disk_ends_the_run(postgresql: Servers) -> None:
    with postgresql.lone("full") as server, on_small_disk(server) as path, at(server, "postgres") as primary:
        primary.prepare()
        with full(path), pytest.raises(TargetError, match="its disk is full"):
            primary.write("k", 1)
        primary.write("k", 1)
        primary.remove()


@contextmanager
def on_small_disk(server: Server) -> Iterator[Path]:
    """Let the server create tables on a disk of 1 MiB."""
    path = server.directory / f"disk-{server.port}"
    with disk(path, 2**20, owner=server.directory.stat().st_uid):
        server.sql(f"CREATE TABLESPACE small LOCATION '{path}'")
        server.sql("ALTER SYSTEM SET default_tablespace = 'small'")
        server.sql("SELECT pg_reload_conf()")
        try:
            yield path
        finally:
            server.process.stop()


@pytest.mark.needs("pgbouncer")
def test_reads_and_writes_through_a_pool_in_transaction_mode(postgresql: Servers) -> None:
    with pooled(postgresql.primary) as port:
        address = f"host=127.0.0.1 port={port} user=prober dbname=postgres"
        with closing(node(address, None)) as first, closing(node(address, None)) as second:
            first.prepare()
            for number in range(1, 21):
                first.write("k", number)
                assert second.read(["k"]) == Shown({"k": number}, is_replica=False)
            assert first.settings().identity == second.settings().identity
            first.remove()


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_have_the_identity_and_what_decides_staleness(postgresql: Servers) -> None:
    with at(postgresql.primary, "postgres") as primary, at(postgresql.slow) as slow:
        found, late = primary.settings(), slow.settings()
        ((identifier,),) = postgresql.primary.sql("SELECT system_identifier FROM pg_control_system()")
        assert found.identity == late.identity == str(identifier)
        assert found.values["synchronous_commit"] == "on"
        assert found.values["sync_state"] == "fast: async, slow: async"
        assert found.warnings == ()
        assert late.values["recovery_min_apply_delay"] == "200ms"
        assert "sync_state" not in late.values
        assert [one.split(":")[0] for one in late.warnings] == ["recovery_min_apply_delay is 200ms"]


def test_settings_of_the_probes_own_user_are_warned_of(postgresql: Servers) -> None:
    postgresql.primary.sql("ALTER ROLE prober SET synchronous_commit = off")
    postgresql.primary.sql("ALTER ROLE prober SET default_transaction_isolation = 'repeatable read'")
    with at(postgresql.primary) as primary:
        said = [warning.split(":")[0] for warning in primary.settings().warnings]
    assert said == ["synchronous_commit is off", "default_transaction_isolation is repeatable read"]
