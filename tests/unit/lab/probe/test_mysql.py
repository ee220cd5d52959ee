"""The MySQL target's addresses, its warnings about settings, and errors that tests cannot make a server report."""

from typing import Any

import pymysql
import pytest

from lab.probe import mysql
from lab.probe.target import NotNow, TargetError


@pytest.mark.parametrize(
    "address",
    [
        "mysql://prober@db1/",
        "mariadb://prober@db1:3307",
        "mysql://p%40b@[::1]/?ssl_ca=/ca.pem&unix_socket=/run/mysqld.sock",
    ],
)
def test_an_address_is_a_url_and_opens_nothing(address: str) -> None:
    assert mysql.node(address, "secret").name == address


@pytest.mark.parametrize(
    "address",
    [
        "db1",
        "mysql:///",
        "http://db1/",
        "mysql://prober@db1/app",
        "mysql://db1:port/",
        "mysql://db1/?x=1",
        "mysql://db1/?x",
    ],
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(TargetError, match=r"^invalid address; write 'mysql://"):
        mysql.node(address, None)


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(TargetError, match="must not contain a password: give it in LAB_PROBE_PASSWORD") as raised:
        mysql.node("mysql://prober:secret@db1/", None)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"transaction_isolation": "READ-COMMITTED", "read_only": "OFF"}, []),
        ({"transaction_isolation": "REPEATABLE-READ"}, ["transaction isolation is REPEATABLE-READ"]),
        ({"tx_isolation": "SERIALIZABLE"}, ["transaction isolation is SERIALIZABLE"]),
        ({"rpl_semi_sync_master_enabled": "OFF"}, []),
        ({"rpl_semi_sync_source_enabled": "ON"}, ["rpl_semi_sync_source_enabled is ON"]),
        ({"SQL_Delay": "0", "read_only": "ON"}, []),
        ({"SQL_Delay": "2", "read_only": "ON"}, ["SQL_Delay is 2 s"]),
        ({"SQL_Delay": "0", "read_only": "OFF"}, ["read_only is OFF on this replica"]),
    ],
)
def test_settings_that_surprise_a_reader_are_warned_of(values: dict[str, str], said: list[str]) -> None:
    assert [sentence.split(":")[0] for sentence in mysql.warnings(values)] == said


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (pymysql.OperationalError(1114, "The table 'numbers' is full"), TargetError, "its disk is full, or a limit"),
        (pymysql.OperationalError(1021, "Disk full (/tmp)"), TargetError, "its disk is full"),
        (pymysql.OperationalError(1836, "Running in read-only mode"), TargetError, "it accepts no writes"),
        (pymysql.OperationalError(1213, "Deadlock found"), NotNow, "Deadlock found"),
        (pymysql.OperationalError(1927, "Connection was killed"), NotNow, "Connection was killed"),
    ],
)
def test_an_error_of_a_write_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], said: str
) -> None:
    monkeypatch.setattr(pymysql, "connect", lambda **_: Failing(error))
    name = "mysql://db1/: " if raised is TargetError else ""  # whoever catches the other one names the node
    with pytest.raises(raised, match=f"^{name}{said}"):
        mysql.node("mysql://db1/", None).write("k", 1)


@pytest.mark.parametrize(
    "error", [pymysql.OperationalError(1040, "Too many connections"), RuntimeError("'cryptography' is required")]
)
def test_a_failure_to_connect_ends_the_start_but_not_a_run(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(pymysql, "connect", fail)
    target = mysql.node("mysql://db1/", None)
    with pytest.raises(TargetError, match=f"^mysql://db1/: {error.args[-1]}$"):
        target.prepare()
    with pytest.raises(NotNow, match=f"^{error.args[-1]}$"):
        target.read(["k"])


class Failing:
    """A connection whose every statement fails."""

    open = True

    def __init__(self, error: Exception) -> None:
        self._error = error

    def cursor(self) -> None:
        raise self._error

    def close(self) -> None:
        self.open = False
