"""Fixtures: each system's servers are started once per session, when a test needs them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.databases import mariadb as maria
from tests.support.databases import postgresql as pg


@pytest.fixture(scope="session")
def postgresql_servers() -> Iterator[Callable[[str], pg.Servers]]:
    """PostgreSQL with two standbys, by which build: ``wheel`` or ``debian``."""
    running: dict[str, pg.Servers] = {}
    with ExitStack() as stack:

        def get(which: str) -> pg.Servers:
            if which not in running:
                running[which] = stack.enter_context(pg.Servers.running(which))
            return running[which]

        yield get


@pytest.fixture(params=["wheel", pytest.param("debian", marks=pytest.mark.needs("postgresql"))])
def postgresql(request: pytest.FixtureRequest, postgresql_servers: Callable[[str], pg.Servers]) -> Iterator[pg.Servers]:
    """The same servers, of which only ``slow`` can still show an earlier test. No connection of a probe stays open."""
    found = postgresql_servers(request.param)
    yield found
    for server in (found.primary, found.slow, found.fast):
        server.wait_until_left()
    found.primary.sql("DROP SCHEMA IF EXISTS lab_probe CASCADE; ALTER ROLE prober RESET ALL")
    found.wait_for_replay(found.fast)


@pytest.fixture(scope="session")
def mariadb_servers() -> Iterator[maria.Servers]:
    """MariaDB with two replicas."""
    with maria.Servers.running() as started:
        yield started


@pytest.fixture
def mariadb(mariadb_servers: maria.Servers) -> Iterator[maria.Servers]:
    """The same servers, of which only ``slow`` can still show an earlier test. No connection of a probe stays open."""
    yield mariadb_servers
    for server in (mariadb_servers.primary, mariadb_servers.slow, mariadb_servers.fast):
        server.wait_until_left()
    mariadb_servers.primary.sql("DROP DATABASE IF EXISTS lab_probe")
    mariadb_servers.wait_for_replay(mariadb_servers.fast)
