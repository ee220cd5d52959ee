"""The probe's MySQL target against real MariaDB servers: a primary, a replica, and one that is 200 ms late."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pymysql
import pytest

from lab.probe.mysql import MySQL, node
from lab.probe.target import NotNow, Shown, TargetError
from tests.support.databases.mariadb import DELAY_SECONDS, PASSWORD, Server, Servers
from tests.support.probing import (
    failing,
    interrupted,
    require_calibrated,
    require_numbers,
    require_one_probe,
    require_sentence,
    shows,
)
from tests.support.until import until

pytestmark = [pytest.mark.xdist_group("mariadb"), pytest.mark.integration, pytest.mark.needs("mariadbd")]
DATABASE = "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'lab_probe'"


def at(server: Server, user: str = "prober") -> "closing[MySQL]":
    return closing(node(server.address(user), None))


@contextmanager
def prepared(server: Server) -> Iterator[MySQL]:
    with at(server) as primary:
        primary.prepare()
        yield primary


@contextmanager
def paused(replica: Server) -> Iterator[None]:
    replica.sql("STOP SLAVE SQL_THREAD")
    try:
        yield
    finally:
        replica.sql("START SLAVE SQL_THREAD")


def test_numbers_are_written_read_from_every_node_and_removed(mariadb: Servers) -> None:
    with prepared(mariadb.primary) as primary, at(mariadb.slow) as slow, at(mariadb.fast, "reader") as fast:
        require_numbers(primary, slow, fast)
        assert mariadb.primary.sql(DATABASE) == ((0,),)


def test_a_read_is_stale_until_the_replica_applies_the_write(mariadb: Servers) -> None:
    with prepared(mariadb.primary) as primary, at(mariadb.fast) as fast:
        primary.write("k", 1)
        until(lambda: shows(fast, "k", 1))
        with paused(mariadb.fast):
            primary.write("k", 2)
            assert fast.read(["k"]) == Shown({"k": 1}, is_replica=True)
        until(lambda: shows(fast, "k", 2))


def test_the_slow_replica_shows_a_write_when_the_delay_has_passed(mariadb: Servers) -> None:
    """Known delays calibrate the probe."""
    with prepared(mariadb.primary) as primary, at(mariadb.slow) as slow:
        sent = time.monotonic()
        primary.write("k", 200)  # a number of this test only
        until(lambda: shows(slow, "k", 200))
        assert time.monotonic() >= sent + DELAY_SECONDS


def test_a_replica_that_has_not_applied_the_creation_shows_no_number(mariadb: Servers) -> None:
    with paused(mariadb.fast), prepared(mariadb.primary) as primary, at(mariadb.fast) as fast:
        primary.write("k", 1)
        assert fast.read(["k"]) == Shown({}, is_replica=True)


def test_a_connection_without_autocommit_never_sees_the_write(mariadb: Servers) -> None:
    """The mutant of the target: PyMySQL's default, under InnoDB's default isolation, REPEATABLE READ."""
    with prepared(mariadb.primary) as primary, at(mariadb.fast) as fast:
        primary.write("k", 1)
        until(lambda: shows(fast, "k", 1))
        with closing(mariadb.fast.connect()) as trapped, trapped.cursor() as cursor:
            for written, seen in ((2, 1), (3, 1)):
                cursor.execute("SELECT number FROM lab_probe.numbers")
                assert cursor.fetchall() == ((seen,),)
                primary.write("k", written)
                until(lambda written=written: shows(fast, "k", written))
            trapped.commit()
            cursor.execute("SELECT number FROM lab_probe.numbers")
            assert cursor.fetchall() == ((3,),)


def test_every_bracket_ends_after_the_delay(mariadb: Servers) -> None:
    nodes = (node(server.address(), None) for server in (mariadb.primary, mariadb.slow, mariadb.fast))
    require_calibrated(*nodes, DELAY_SECONDS)
    assert mariadb.primary.sql(DATABASE) == ((0,),)


# -- what exists already, and rights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mine", ["TABLE lab_probe.numbers (mine int)", "FUNCTION lab_probe.f() RETURNS int DETERMINISTIC RETURN 1"]
)
def test_a_foreign_database_is_refused_and_kept(mariadb: Servers, mine: str) -> None:
    mariadb.primary.sql("CREATE DATABASE lab_probe", f"CREATE {mine}")
    with at(mariadb.primary, "root") as primary:
        for change in (primary.prepare, primary.remove):
            with pytest.raises(
                TargetError, match="the database lab_probe has what no probe created; drop or rename it"
            ):
                change()
    assert mariadb.primary.sql(DATABASE) == ((1,),)


def test_a_database_of_another_run_is_refused_and_can_be_removed(mariadb: Servers) -> None:
    with prepared(mariadb.primary) as first, at(mariadb.primary) as second:
        require_one_probe(first, second)


def test_missing_privileges_are_reported_with_the_grant_that_gives_them(mariadb: Servers) -> None:
    grant = "GRANT SELECT, INSERT, UPDATE, CREATE, DROP ON lab_probe.* TO 'powerless'@'%'"
    with at(mariadb.primary, "powerless") as primary:
        assert primary.describe().missing == (grant,)
        with pytest.raises(TargetError) as raised:
            primary.prepare()
        assert str(raised.value).endswith(f"as an administrator: {grant}")
        assert mariadb.primary.sql(DATABASE) == ((0,),)
        mariadb.primary.sql(grant)
        try:
            assert primary.describe().missing == ()
            primary.prepare()
            primary.write("k", 1)
            primary.remove()
        finally:
            mariadb.primary.sql("REVOKE ALL PRIVILEGES ON lab_probe.* FROM powerless")


def test_a_privilege_that_is_missing_on_a_replica_is_reported(mariadb: Servers) -> None:
    grant = "GRANT SELECT ON lab_probe.* TO 'powerless'@'%'"
    with prepared(mariadb.primary), at(mariadb.fast, "powerless") as replica:
        mariadb.wait_for_replay(mariadb.fast)
        assert replica.describe().missing == (grant,)
        with pytest.raises(TargetError) as raised:
            replica.read(["k"])
        assert str(raised.value).endswith(f"as an administrator: {grant}")


def test_privileges_of_a_role_are_not_reported_as_missing(mariadb: Servers) -> None:
    mariadb.primary.sql(
        "CREATE ROLE probing",
        "GRANT SELECT, INSERT, UPDATE, CREATE, DROP ON lab_probe.* TO probing",
        "GRANT probing TO powerless",
        "SET DEFAULT ROLE probing FOR powerless",
    )
    try:
        with at(mariadb.primary, "powerless") as primary:
            assert primary.describe().missing == ()
            primary.prepare()
            primary.remove()
    finally:
        mariadb.primary.sql("DROP ROLE probing", "SET DEFAULT ROLE NONE FOR powerless")


def test_a_description_has_every_statement_and_changes_nothing(mariadb: Servers) -> None:
    with at(mariadb.primary) as primary, at(mariadb.fast) as replica:
        described = "\n".join(primary.describe().statements)
        for part in ("CREATE DATABASE", "CREATE TABLE", "INSERT INTO", "LEFT JOIN", "DROP DATABASE", "SHOW REPLICA"):
            assert part in described
        assert not any("CREATE" in statement for statement in replica.describe().statements)
    assert mariadb.primary.sql(DATABASE) == ((0,),)


@pytest.mark.parametrize(
    ("user", "where", "password", "reason"),
    [
        ("guarded", "", None, "Access denied .*; give the password in LAB_PROBE_PASSWORD$"),
        ("guarded", "", "wrong-password", r"Access denied for user 'guarded'@'127.0.0.1' \(using password: YES\)$"),
        ("prober", "127.0.0.1:1", None, "Can't connect to MySQL server on '127.0.0.1'.*Connection refused"),
        ("prober", "absent.invalid:3306", None, "Can't connect to MySQL server on 'absent.invalid'"),
    ],
)
def test_a_failure_to_connect_is_one_sentence(
    mariadb: Servers, user: str, where: str, password: str | None, reason: str
) -> None:
    with closing(node(f"mysql://{user}@{where or f'127.0.0.1:{mariadb.primary.port}'}/", password)) as target:
        require_sentence(target, reason)


def test_a_password_is_given_beside_the_address(mariadb: Servers) -> None:
    with closing(node(mariadb.primary.address("guarded"), PASSWORD)) as target:
        assert PASSWORD not in target.name
        assert target.settings().values["version"]


# -- what goes wrong during a run --------------------------------------------------------------------------------------


def test_a_replica_is_refused_as_primary_even_for_an_administrator(mariadb: Servers) -> None:
    for user in ("prober", "root"):
        with at(mariadb.fast, user) as replica, pytest.raises(TargetError, match="accepts no writes: it is read-only"):
            replica.prepare()


def test_a_primary_that_becomes_read_only_ends_the_run_and_shows_it(mariadb: Servers) -> None:
    with prepared(mariadb.primary) as primary:
        mariadb.primary.sql("SET GLOBAL read_only = 1")
        try:
            assert primary.read(["k"]).is_replica
            with pytest.raises(TargetError, match="accepts no writes: it is read-only"):
                primary.write("k", 1)
        finally:
            mariadb.primary.sql("SET GLOBAL read_only = 0")


def test_a_promotion_is_seen_by_the_next_read(mariadb: Servers) -> None:
    with at(mariadb.fast) as replica:
        assert replica.read(["k"]).is_replica
        mariadb.fast.sql("STOP SLAVE", "SET GLOBAL read_only = 0")
        try:
            assert not replica.read(["k"]).is_replica
        finally:
            mariadb.fast.sql("SET GLOBAL read_only = 1", "START SLAVE")


def test_a_canceled_read_and_a_dropped_connection_fail_once(mariadb: Servers) -> None:
    with prepared(mariadb.primary) as primary:
        primary.write("k", 1)
        ours = mariadb.primary.probes()
        with closing(mariadb.primary.connect()) as blocking, blocking.cursor() as cursor:
            cursor.execute("LOCK TABLES lab_probe.numbers WRITE")
            with failing(lambda: primary.read(["k"])) as failures:
                until(lambda: mariadb.primary.sql(BLOCKED))
                mariadb.primary.sql("KILL QUERY %s", values=(ours[0],))
            assert "interrupted" in failures[0]
        assert primary.read(["k"]).numbers == {"k": 1}
        assert mariadb.primary.probes() == ours
        mariadb.primary.sql("KILL %s", values=(ours[0],))
        with pytest.raises(NotNow):
            primary.write("k", 2)
        primary.write("k", 2)
        assert primary.read(["k"]).numbers == {"k": 2}


@pytest.mark.parametrize(
    ("act", "said", "status"),
    [
        ("SET GLOBAL read_only = 1", "it accepts no writes: it is read-only", 1),
        ("DROP DATABASE lab_probe", "it was removed during the run", 1),
        ("KILL USER prober", "of 50 writes in", 0),
    ],
)
def test_a_run_that_something_disturbs_is_one_sentence(mariadb: Servers, act: str, said: str, status: int) -> None:
    line = ("mysql", "--primary", mariadb.primary.address(), "--replica", mariadb.fast.address())
    administrator = mariadb.primary.connect(autocommit=True)  # of the other thread

    def numbers() -> object:
        with suppress(pymysql.MySQLError), administrator.cursor() as cursor:
            cursor.execute("SELECT MAX(number) FROM lab_probe.numbers")
            return cursor.fetchall()
        return None

    try:
        done = interrupted(lambda: mariadb.primary.sql(act), numbers, *line, "--rate", "50", "--seconds", "1")
    finally:
        mariadb.primary.sql("SET GLOBAL read_only = 0")
        administrator.close()
    assert (done.exit_code, said in " ".join(done.stdout.split())) == (status, True), done.output
    assert bool(done.stderr) == ("read_only" in act), "what its user cannot remove from a read-only server is named"


BLOCKED = "SELECT id FROM information_schema.processlist WHERE user = 'prober' AND state LIKE 'Waiting for table%'"


def test_a_read_without_an_answer_has_a_bound(mariadb: Servers) -> None:
    where = {"host": "127.0.0.1", "port": mariadb.primary.port, "user": "prober"}
    with prepared(mariadb.primary) as primary, closing(MySQL("hasty", where, None, answer_seconds=0.3)) as hasty:
        primary.write("k", 1)
        with closing(mariadb.primary.connect()) as blocking, blocking.cursor() as cursor:
            cursor.execute("LOCK TABLES lab_probe.numbers WRITE")
            with pytest.raises(NotNow, match=r"^Lost connection to MySQL server during query .*timed out"):
                hasty.read(["k"])
        assert hasty.read(["k"]).numbers == {"k": 1}


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_decide_staleness_and_those_that_surprise_are_warned_of(mariadb: Servers) -> None:
    mariadb.fast.sql("STOP SLAVE", "CHANGE MASTER TO master_delay = 2", "START SLAVE")
    try:
        with at(mariadb.primary) as primary, at(mariadb.fast) as plain, at(mariadb.fast, "root") as administrator:
            found = primary.settings()
            assert (found.identity, found.values["read_only"]) == (None, "OFF")
            assert [one.split(":")[0] for one in found.warnings] == ["transaction isolation is REPEATABLE-READ"]
            assert "SQL_Delay" not in plain.settings().values, "without the privilege to ask"
            late = administrator.settings()
            assert late.values["SQL_Delay"] == "2"
            assert [one.split(":")[0] for one in late.warnings][1:] == ["SQL_Delay is 2 s"]
    finally:
        mariadb.fast.sql("STOP SLAVE", "CHANGE MASTER TO master_delay = 0", "START SLAVE")
