"""A lab on three hosts that are cut off from each other: what was acknowledged is kept, or named as lost."""

import time
from collections.abc import Iterator

import pytest

from tests.integration.conftest import metric
from tests.support.deployment import Deployment
from tests.support.load import Writers
from tests.support.until import until

pytestmark = [
    pytest.mark.needs("netns", "openssl", "redis-server"),
    pytest.mark.xdist_group("hosts"),
    pytest.mark.timeout(120),
]
SECONDS = 30.0


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment.running(tmp_path_factory.mktemp("hosts")) as found:
        yield found


def more(load: Writers, count: int = 30) -> None:
    """Wait until more writes are acknowledged."""
    seen = len(load.times)
    until(lambda: len(load.times) > seen + count, SECONDS)


def between(load: Writers, first: float, last: float) -> int:
    """The writes that were acknowledged in this time."""
    return sum(first < at < last for at in load.times)


def lost(hosts: Deployment, host: int = 1) -> float:
    return metric(hosts.url("primary", host), "ec_lost_writes_total")[""]


def test_every_node_is_healthy_and_shows_its_address(hosts: Deployment) -> None:
    found = {one["replica_id"]: (one["url"], one["proven"]) for one in hosts.ask("GET", f"{hosts.url('primary')}/replicas")["replicas"]}
    assert found == {f"lab14-{name}": (hosts.url(name), True) for name in ("replica1", "replica2")}


@pytest.mark.parametrize("copies", [1, 0])
def test_a_master_that_is_isolated_with_its_primary(hosts: Deployment, copies: int) -> None:
    hosts.make_master(1)
    before, judge = lost(hosts), hosts.judge()
    with hosts.writers(copies=copies) as load:
        more(load)
        with hosts.network.partition(lambda: hosts.network.isolate(1)) as cut_at:
            until(lambda: hosts.named(2, 3) == 2, SECONDS)
            promoted_at = time.monotonic()
            more(load) if copies == 0 else until(lambda: load.refused and load.refused[-1][0] > promoted_at, SECONDS)
            healed_at = time.monotonic()
        hosts.wait_until_settled()
        more(load)
    found = judge.judge(load)
    print(f"isolated with primary, copies={copies}: {len(load.acknowledged)} acknowledged, {between(load, cut_at + 1, healed_at)} "
          f"from 1 s after the cut to healing, {len(found.lost)} lost, {len(found.named)} named, promoted after "
          f"{promoted_at - cut_at:.1f} s, first acknowledged {min(t for t in load.times if t > healed_at) - healed_at:.1f} s after healing")
    assert found.is_right, found
    assert lost(hosts) - before == len(found.lost)
    if copies:
        assert (found.lost, between(load, cut_at + 1, healed_at)) == (set(), 0)
        assert {outcome for at, outcome in load.refused if cut_at < at < healed_at} <= {"unknown", "not_applied"}
    else:
        assert len(found.lost) >= between(load, cut_at + 1, healed_at) > 0
        notices = hosts.health("primary")[1]["notices"]
        assert f"the log lost {len(found.lost)} acknowledged writes" in notices[-1]


@pytest.mark.parametrize("copies", [1, 0])
def test_a_master_that_is_isolated_from_its_primary(hosts: Deployment, copies: int) -> None:
    hosts.make_master(2)
    before, judge = lost(hosts), hosts.judge()
    with hosts.writers(copies=copies) as load:
        more(load)
        with hosts.network.partition(lambda: hosts.network.isolate(2)) as cut_at:
            until(lambda: hosts.named(1, 3) == 1, SECONDS)
            promoted_at = time.monotonic()
            moved_at = time.monotonic()
            until(lambda: hosts.is_healthy("primary"), SECONDS)
            moved_at = time.monotonic()
            if copies == 0:
                more(load)
            healed_at = time.monotonic()
        hosts.wait_until_settled()
        more(load)
    found = judge.judge(load)
    print(f"isolated without primary, copies={copies}: {len(load.acknowledged)} acknowledged, {between(load, cut_at + 1, healed_at)} "
          f"from 1 s after the cut to healing, {len(found.lost)} lost, {len(found.named)} named, promoted after {promoted_at - cut_at:.1f} s, "
          f"primary healthy after {moved_at - cut_at:.1f} s, first acknowledged {min(t for t in load.times if t > cut_at + 1) - cut_at:.1f} s after the cut")
    assert found.is_right, found
    assert lost(hosts) - before == len(found.lost)
    if copies:
        assert (found.lost, between(load, cut_at + 1, healed_at)) == (set(), 0)
