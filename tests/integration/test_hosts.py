"""A lab on three hosts that are cut off from each other: what was acknowledged is kept, or named as lost."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from broker.position import Position
from tests.integration.conftest import metric
from tests.support.deployment import LOG_HOSTS, PLACES, Deployment
from tests.support.hosts import Network
from tests.support.http import POOL
from tests.support.load import Writers
from tests.support.until import until

pytestmark = [
    pytest.mark.needs("netns", "openssl", "redis-server"),
    pytest.mark.xdist_group("hosts"),
    pytest.mark.timeout(120),
]
SECONDS = 40.0
IN_FLIGHT_SECONDS = 1.0  # until a reply that was on its way at the cut has arrived


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment.running(tmp_path_factory.mktemp("hosts")) as found:
        yield found


def test_nothing_of_a_network_is_left_after_a_failure(tmp_path: Path) -> None:
    with suppress(RuntimeError), Network.of(2) as network:
        process = network.start(2, ["sleep", "60"], tmp_path / "output")
        names = {f"lab77-{network.address(1).split('.')[2]}{end}" for end in ("", "-1", "-2")}
        assert names <= namespaces()
        until(lambda: psutil.Process(process.pid).name() == "sleep", 10)  # it is in its network
        raise RuntimeError
    assert process.wait(10) == -signal.SIGKILL
    assert not names & namespaces()


def namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines()}


def more(*loads: Writers, count: int = 30) -> None:
    """Wait until each has more acknowledged writes."""
    seen = [len(load.times) for load in loads]
    until(lambda: all(len(load.times) > before + count for load, before in zip(loads, seen, strict=True)), SECONDS)


def acknowledged(load: Writers, first: float, last: float) -> list[float]:
    return [at for at in load.times if first < at < last]


def lost_of(load: Writers, lost: set[Position]) -> int:
    return len({Position.parse(write["position"]) for write in load.acknowledged} & lost)


def named(hosts: Deployment, host: int = 1) -> int:
    """How many lost writes this primary has counted."""
    return int(metric(hosts.url("primary", host), "ec_lost_writes_total")[""])


def test_nodes_register_with_their_hosts_addresses(hosts: Deployment) -> None:
    found = hosts.ask("GET", f"{hosts.url('primary')}/replicas")["replicas"]
    expected = {f"lab14-{name}": (hosts.url(name), True) for name in ("replica1", "replica2")}
    assert {one["replica_id"]: (one["url"], one["proven"]) for one in found} == expected


def test_prometheus_reaches_every_node(hosts: Deployment) -> None:
    (job,) = hosts.prometheus()["scrape_configs"]
    listed = POOL.request("GET", job["http_sd_configs"][0]["url"]).json()
    urls = {f"http://{name}" for group in (*job["static_configs"], *listed) for name in group["targets"]}
    assert urls == {hosts.url(name) for name in PLACES}
    assert all(POOL.request("GET", f"{url}/metrics").status == 200 for url in urls)


def test_a_master_that_is_cut_off_with_its_primary(hosts: Deployment) -> None:
    hosts.make_master(1)
    before, judge = named(hosts), hosts.judge()
    with hosts.writers(copies=0) as hasty, hosts.writers(copies=1) as careful:
        more(hasty, careful)
        with hosts.network.partition(lambda: hosts.network.isolate(1)) as cut_at:
            until(lambda: hosts.named(2, 3) == 2, SECONDS)
            promoted_at = time.monotonic()
            more(hasty)  # the old master still takes them
            until(lambda: any(at > promoted_at for at, _ in careful.refused), SECONDS)
            healed_at = time.monotonic()
        hosts.wait_until_settled()
        more(hasty, careful)
    found = judge.judge(hasty, careful)
    show("cut off with the primary", hasty, careful, found.lost, cut_at, promoted_at, healed_at)
    assert found.is_right, found
    assert (lost_of(careful, found.lost), acknowledged(careful, cut_at + IN_FLIGHT_SECONDS, healed_at)) == (0, [])
    assert {outcome for at, outcome in careful.refused if cut_at < at < healed_at} <= {"unknown", "not_applied"}
    assert len(found.lost) >= len(acknowledged(hasty, cut_at + IN_FLIGHT_SECONDS, healed_at)) > 0
    assert named(hosts) - before == len(found.lost)
    assert f"the log lost {len(found.lost)} acknowledged writes" in hosts.health("primary")[1]["notices"][-1]


def test_a_master_that_is_cut_off_from_its_primary(hosts: Deployment) -> None:
    hosts.make_master(2)
    before, judge = named(hosts), hosts.judge()
    with hosts.writers(copies=0) as hasty, hosts.writers(copies=1) as careful:
        more(hasty, careful)
        with hosts.network.partition(lambda: hosts.network.isolate(2)) as cut_at:
            until(lambda: hosts.named(1, 3) == 1, SECONDS)
            promoted_at = time.monotonic()
            more(hasty)
            healed_at = time.monotonic()
        hosts.wait_until_settled()
        more(hasty, careful)
    found = judge.judge(hasty, careful)
    show("cut off from the primary", hasty, careful, found.lost, cut_at, promoted_at, healed_at)
    assert found.is_right, found
    assert (lost_of(careful, found.lost), acknowledged(careful, cut_at + IN_FLIGHT_SECONDS, healed_at)) == (0, [])
    assert named(hosts) - before == len(found.lost)


def test_a_replica_that_replies_of_the_log_do_not_reach(hosts: Deployment) -> None:
    hosts.make_master(1)
    replica, primary = hosts.url("replica2"), hosts.url("primary")
    behind = '{replica="lab14-replica2"}'

    def is_level() -> bool:
        return hosts.ask("GET", f"{replica}/version")["position"] == hosts.ask("GET", f"{primary}/version")["position"]

    def applied() -> tuple[float, int]:
        counted = metric(replica, "ec_applied_total")['{replica="lab14-replica2",result="applied"}']
        return counted, hosts.ask("GET", f"{replica}/version")["version"]

    until(is_level, SECONDS)
    before, judge = applied(), hosts.judge()
    with hosts.writers(copies=0) as load:
        more(load)
        with hosts.network.partition(lambda: hosts.network.drop(1, 3)) as cut_at:
            until(lambda: hosts.health("replica2")[0] == 503, SECONDS)
            noticed_at = time.monotonic()
            assert metric(primary, "ec_replica_lag_seconds")[behind] > 0.5
            more(load)
            assert metric(primary, "ec_replica_lag_seconds")[behind] > 1
            healed_at = time.monotonic()
        until(lambda: hosts.is_healthy("replica2") and metric(primary, "ec_replica_lag_seconds")[behind] < 0.5, SECONDS)
        mended_at = time.monotonic()
    until(is_level, SECONDS)
    after = applied()
    print(f"noticed after {noticed_at - cut_at:.1f} s, mended after {mended_at - healed_at:.1f} s")
    assert after[0] - before[0] == after[1] - before[1] == len(load.acknowledged)
    found = judge.judge(load)
    assert (found.is_right, found.lost) == (True, set()), found


def test_a_second_primary_beside_the_first(hosts: Deployment) -> None:
    hosts.start("primary", 3)
    until(lambda: hosts.is_healthy("primary", 3), SECONDS)
    hosts.make_master(1)
    before, judge = [named(hosts, host) for host in (1, 3)], hosts.judge()
    with hosts.writers(1, copies=0) as first, hosts.writers(3, copies=0) as second:
        more(first, second)
        until(lambda: hosts.ask_sentinel(2, "FAILOVER", "lab14"), SECONDS)
        until(lambda: hosts.named(1, 2, 3) == 2 and hosts.is_settled(), SECONDS)
        more(first, second)
    found = judge.judge(first, second)
    lost = [lost_of(load, found.lost) for load in (first, second)]
    print(f"two primaries: {len(first.times)} + {len(second.times)} acknowledged, {lost} lost")
    assert found.is_right, found
    until(lambda: [named(hosts, host) for host in (1, 3)] == [a + b for a, b in zip(before, lost, strict=True)])
    hosts.stop("primary", 3)


def test_the_documented_rights_are_enough(hosts: Deployment) -> None:
    primary, client = hosts.url("primary"), hosts.url("client")
    until(lambda: all(map(hosts.is_healthy, PLACES)), SECONDS)
    hosts.ask("POST", f"{client}/write-and-wait", {"key": "k", "value": 1})
    hosts.ask("POST", f"{primary}/data/batch?copies=1", [{"key": f"b{n}", "value": n} for n in range(100)])
    hosts.ask("POST", f"{primary}/data?acks=2", {"key": "a", "value": 1})
    hosts.ask("DELETE", f"{primary}/data/k")
    hosts.ask("POST", f"{client}/delays", {"replica": "lab14-replica1", "delay_ms": 30})
    for fault in ("pause", "duplicate"):
        hosts.ask("POST", f"{client}/faults", {"replica": "lab14-replica1", "fault": fault, "duration_ms": 300})
    hosts.ask("POST", f"{client}/resync", {"replica": "lab14-replica1"})
    for path in ("read-compare?digest=true", "status", "everywhere/a", "read/a?level=session", "faults"):
        hosts.ask("GET", f"{client}/{path}")
    hosts.ask("POST", f"{client}/reset")
    sent = hosts.ask("POST", f"{client}/experiments", {"kind": "windows", "writes": 2}, status=202)
    ended = until(lambda: finished(hosts, sent["id"]), SECONDS)
    assert (ended["state"], ended["reason"]) == ("finished", None)
    assert refused(hosts) == set()
    hosts.ask("POST", f"{client}/faults/reset")  # also tries to heal the log servers, which it cannot have isolated
    assert refused(hosts) == {"acl|setuser"}


def refused(hosts: Deployment) -> set[str]:
    """The commands that the log servers have not allowed."""
    return {one[one.index("object") + 1] for host in LOG_HOSTS for one in hosts.ask_server(host, "ACL", "LOG")}


def finished(hosts: Deployment, name: str) -> dict[str, object]:
    found = hosts.ask("GET", f"{hosts.url('client')}/experiments/{name}")
    return found if found["state"] not in {"queued", "running"} else {}


def show(
    what: str,
    hasty: Writers,
    careful: Writers,
    lost: set[Position],
    cut_at: float,
    promoted_at: float,
    healed_at: float,
) -> None:
    """Print figures for ``pytest -s``."""
    since = cut_at + IN_FLIGHT_SECONDS
    for copies, load in enumerate((hasty, careful)):
        print(
            f"{what}, copies={copies}: {len(load.times)} acknowledged, {len(acknowledged(load, since, healed_at))} of "
            f"them before healing, {lost_of(load, lost)} lost; promoted {promoted_at - cut_at:.1f} s, acknowledged "
            f"again {min(at for at in load.times if at > since) - cut_at:.1f} s after the cut; healed after "
            f"{healed_at - cut_at:.1f} s"
        )
