"""The blocks of docs/probe.md on real servers, unchanged except for addresses and durations."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import urllib3
import yaml

from lab.local.supervisor import Lab
from lab.probe import etcd
from tests.support import etcd_cluster, reader_settings, redis_replicas
from tests.support.databases import mariadb as maria
from tests.support.databases import postgresql as pg
from tests.support.http import POOL, serving
from tests.support.ports import base_port
from tests.support.until import until

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/probe.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^##? (.+?)\n(.*?)(?=^##? |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
PASSWORD = "choose-one"  # of the document's users
pytestmark = pytest.mark.integration


def blocks(heading: str, language: str = "bash") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[heading], re.MULTILINE | re.DOTALL)


class Shell:
    """Runs blocks in an empty directory. ``places``: what stands in them, and what to put there."""

    def __init__(self, directory: Path, places: Mapping[str, str], **environment: str) -> None:
        self.directory, self._places = directory, places
        python = Path(sys.executable).parent
        path = {"PATH": f"{python}:{os.environ['PATH']}", "LAB_PROBE_PASSWORD": PASSWORD}
        self._environment = {**os.environ, **path, **environment}

    def run(self, block: str, status: int = 0) -> str:
        line = ["bash", "-e", "-o", "pipefail", "-c", self._script(block)]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=50, check=False, cwd=self.directory, env=self._environment
        )
        assert done.returncode == status, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def started(self, block: str) -> Iterator["subprocess.Popen[bytes]"]:
        line = ["bash", "-c", f"exec {self._script(block)}"]
        with subprocess.Popen(line, cwd=self.directory, env=self._environment) as process:
            try:
                yield process
            finally:
                process.kill()

    def _script(self, block: str) -> str:
        shorter = "--seconds 1" if "--sessions" in block else "--seconds 1 --writes 5"
        script = re.sub(r"--seconds \d+", shorter, block)
        for place, real in self._places.items():
            script = script.replace(place, real)
        return script


def test_every_block_is_run_by_a_test() -> None:
    tested = set(re.findall(r'(?:blocks|require_stale)\(.*?"([^"]+)"', Path(__file__).read_text(encoding="utf-8")))
    assert {heading for heading in SECTIONS if blocks(heading)} <= tested
    assert DOCUMENT.count("```bash") == sum(len(blocks(heading)) for heading in SECTIONS)


# -- the lab -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_lab(fresh: Lab, tmp_path: Path) -> Path:
    """A directory that looks like a checkout with a running lab."""
    (tmp_path / ".lab").symlink_to(fresh.data_dir)
    return tmp_path


def test_the_calibration_shows_what_is_configured(in_lab: Path) -> None:
    (block,) = blocks("Measure your own store")
    output = Shell(in_lab, {}).run(block)
    assert output.count("configured") == 2
    assert re.search(r"^stale at the acknowledgement +100.0% .*100.0%$", output, re.MULTILINE)


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.fixture
def wheel(postgresql_servers: Callable[[str], pg.Servers]) -> Iterator[pg.Servers]:
    """The servers of the wheel, with the user that the document creates."""
    found = postgresql_servers("wheel")
    (statements,) = blocks("PostgreSQL", "sql")
    found.primary.sql(statements.replace("DATABASE app", "DATABASE postgres"))
    found.wait_for_replay(found.fast)
    found.wait_for_replay(found.slow)
    yield found
    found.primary.sql("DROP OWNED BY lab_probe; DROP ROLE lab_probe")


def services(servers: pg.Servers, directory: Path, places: Mapping[str, str] | None = None) -> Shell:
    (file,) = blocks("PostgreSQL", "ini")
    for host, server in (("db1", servers.primary), ("db2", servers.slow)):
        file = file.replace(f"host={host}\ndbname=app", f"host=127.0.0.1\nport={server.port}\ndbname=postgres")
    (directory / "services.conf").write_text(file)
    return Shell(directory, places or {}, PGSERVICEFILE=str(directory / "services.conf"))


@pytest.mark.xdist_group("probe document")
def test_postgresql_is_measured_with_the_privileges_of_the_document(wheel: pg.Servers, tmp_path: Path) -> None:
    shell = services(wheel, tmp_path)
    block, with_a_level = blocks("PostgreSQL")
    dry, measure, remove = block.splitlines()
    assert "missing" not in shell.run(dry)
    output = shell.run(measure)
    assert re.search(r"^stale 100 ms later +100.0% +100.0% ", output, re.MULTILINE)
    assert "recovery_min_apply_delay is 200ms" in output
    assert "slow: async" in output
    assert "synchronous_commit remote_apply" in shell.run(with_a_level)
    assert shell.run(remove) == "Removed.\n"


@pytest.mark.xdist_group("probe document")
def test_a_lab_shows_the_lag_that_was_measured_on_postgresql(wheel: pg.Servers, in_lab: Path) -> None:
    (block,) = blocks("Your lag on the lab")
    output = services(wheel, in_lab).run(block)
    _, twin, _ = re.findall(r"^stale 100 ms later +(.*\S) *$", output, re.MULTILINE)
    at_least, at_most, *_, configured = twin.split()
    assert at_least == at_most == configured == "100.0%"


@pytest.mark.xdist_group("probe document")
def test_an_expected_guarantee_decides_the_exit_status(wheel: pg.Servers, tmp_path: Path) -> None:
    shell = services(wheel, tmp_path)
    (block,) = blocks("What users see, and CI")
    shell.run(block)
    check, judged = "lab check --history seen.jsonl --expect ", "smallest counterexample"
    assert judged in shell.run(f"{check} read_your_writes", status=1)
    shell.run(f"{check} consistent_prefix", status=2)


@pytest.mark.xdist_group("probe document")
def test_a_run_becomes_a_page(wheel: pg.Servers, tmp_path: Path) -> None:
    (block,) = blocks("The report")
    services(wheel, tmp_path).run(block)
    assert "service=app-replica" in (tmp_path / "probe.html").read_text(encoding="utf-8")


@pytest.mark.xdist_group("probe document")
def test_the_exporter_serves_what_prometheus_is_told_to_scrape(wheel: pg.Servers, tmp_path: Path) -> None:
    (block,), (scraped,) = blocks("For ever, as an exporter"), blocks("For ever, as an exporter", "yaml")
    (target,) = yaml.safe_load(scraped)["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target in block
    own = f"127.0.0.1:{base_port()}"
    shell = services(wheel, tmp_path, {target: own})
    with shell.started(block) as process:
        until(lambda: 'ec_replica_lag_seconds{replica="app-replica"}' in metrics(own), 30)
        process.terminate()
        assert process.wait(20) == 0
    assert wheel.primary.probes() == []


def metrics(address: str) -> str:
    with suppress(urllib3.exceptions.HTTPError):
        return POOL.request("GET", f"http://{address}/metrics").data.decode()
    return ""


@pytest.mark.xdist_group("probe document")
def test_a_standby_is_fresh_only_if_the_write_waited_for_its_replay(
    postgresql_servers: Callable[[str], pg.Servers],
) -> None:
    settings = [("slow", "on"), ("slow", "remote_apply")]
    stale, fresh = reader_settings.of_postgresql(postgresql_servers("wheel"), 4, settings)
    assert stale.slow["stale"][0]["at_least"] == 1
    assert stale.own_writes_missed > 0
    assert fresh.write_ms >= pg.DELAY_SECONDS * 1000
    assert fresh.slow["stale"][0]["at_least"] == fresh.own_writes_missed == 0


@pytest.mark.xdist_group("probe document")
def test_only_a_transaction_at_repeatable_read_misses_acknowledged_writes(
    postgresql_servers: Callable[[str], pg.Servers],
) -> None:
    require_snapshots(reader_settings.of_postgresql_readers(postgresql_servers("wheel"), 3))


def require_snapshots(found: Iterator[reader_settings.Snapshot]) -> None:
    stale = {(one.reader, one.isolation): one.stale for one in found}
    assert stale.pop(("one transaction", "REPEATABLE READ")) == 3
    assert list(stale.values()) == [0, 0, 0]


# -- other systems -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mariadb_user(mariadb: maria.Servers) -> Iterator[maria.Servers]:
    (block,) = blocks("MySQL and MariaDB", "sql")
    mariadb.primary.sql(*filter(str.strip, block.split(";")))
    mariadb.wait_for_replay(mariadb.slow)
    yield mariadb
    mariadb.primary.sql("DROP USER lab_probe")


@pytest.mark.needs("mariadbd")
@pytest.mark.xdist_group("mariadb")
def test_mariadb_is_measured_with_the_privileges_of_the_document(mariadb_user: maria.Servers, tmp_path: Path) -> None:
    servers = {"db1": mariadb_user.primary, "db2": mariadb_user.slow}
    places = {f"{host}:3306": f"127.0.0.1:{server.port}" for host, server in servers.items()}
    require_stale(Shell(tmp_path, places), "MySQL and MariaDB")
    require_snapshots(reader_settings.of_mariadb_readers(mariadb_user, 3))


def require_stale(shell: Shell, section: str, after_ms: int = 100) -> None:
    (block,) = blocks(section)
    dry, measure = block.splitlines()
    assert "missing" not in shell.run(dry)
    assert re.search(rf"^stale {after_ms} ms later +100.0% +100.0% ", shell.run(measure), re.MULTILINE)


@pytest.fixture(scope="module")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_replicas.Replicas]:
    with redis_replicas.running("redis-server", tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.mark.needs("redis-server")
@pytest.mark.xdist_group("redis")
def test_redis_is_measured_with_the_rights_of_the_document(
    redis_servers: redis_replicas.Replicas, tmp_path: Path
) -> None:
    (rule,) = blocks("Redis and Valkey", "text")
    servers = {"redis1": redis_servers.primary, "redis2": redis_servers.slow}
    for server in servers.values():
        server.client.execute_command(*rule.split())
    places = {f"{host}:6379": f"127.0.0.1:{server.port}" for host, server in servers.items()}
    require_stale(Shell(tmp_path, places), "Redis and Valkey")


@pytest.mark.needs("redis-server")
@pytest.mark.xdist_group("redis")
def test_a_replica_is_fresh_only_if_the_write_waited_for_all(redis_servers: redis_replicas.Replicas) -> None:
    one, both = reader_settings.of_redis(redis_servers, 4, waits=(1, 2))
    assert one.slow["stale"][0]["at_least"] == 1
    assert one.own_writes_missed > 0
    assert both.slow["stale"][0]["at_least"] == both.own_writes_missed == 0


@pytest.fixture(scope="module")
def etcd_members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[etcd_cluster.Member]]:
    """A cluster with the user that the document creates."""
    with etcd_cluster.running(tmp_path_factory.mktemp("etcd")) as found:
        (block,) = blocks("etcd", "text")
        for line in block.splitlines():
            call(found[0], *line.split()[1:])
        call(found[0], "user", "add", "root")
        call(found[0], "role", "add", "root")
        call(found[0], "user", "grant-role", "root", "root")
        found[0].post("auth/enable")
        for member in found:
            member.peer.delay_seconds = etcd_cluster.DELAY_SECONDS
        yield found


def call(member: etcd_cluster.Member, kind: str, command: str, name: str, *more: str) -> None:
    """Do what a command of ``etcdctl`` does."""
    path = f"auth/{kind}/{command.partition('-')[0]}"
    if command == "grant-permission":
        assert more == ("readwrite", "--prefix=true", "lab_probe/")
        permission = {"permType": "READWRITE", **etcd._prefix()}
        member.post(path, name=name, perm=permission)
    elif command == "grant-role":
        member.post(path, user=name, role=more[0])
    else:
        member.post(path, name=name, **({"password": PASSWORD} if kind == "user" else {}))


@pytest.mark.needs("etcd")
@pytest.mark.xdist_group("etcd")
def test_etcd_is_measured_with_the_rights_of_the_document(
    etcd_members: list[etcd_cluster.Member], tmp_path: Path
) -> None:
    places = {f"etcd{n}:2379": f"127.0.0.1:{member.port}" for n, member in enumerate(etcd_members, 1)}
    require_stale(Shell(tmp_path, places), "etcd", after_ms=30)


# -- HTTP --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[str]:
    texts: dict[str, bytes] = {}

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if request.command in {"PUT", "POST"}:
            texts[request.path] = body
        found = texts.pop(request.path, None) if request.command == "DELETE" else texts.get(request.path)
        return (404, b"") if found is None else (200, found)

    with serving(answer) as url:
        yield url.removeprefix("http://")
    assert texts == {}


@pytest.mark.parametrize("block", blocks("Anything over HTTP"))
def test_a_store_behind_http_is_measured(block: str, store: str, tmp_path: Path) -> None:
    assert "writes, worth" in Shell(tmp_path, {"app1": store, "app2": store}).run(block)


# -- what the document quotes ------------------------------------------------------------------------------------------


def test_the_tables_have_the_columns_of_the_script() -> None:
    for heading in reader_settings.HEADINGS.values():
        assert f"\n| {heading} |\n" in DOCUMENT
