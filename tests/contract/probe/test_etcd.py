"""The probe's target on a real etcd cluster, whose members can get each other's messages 50 ms late."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from lab.checking import promises
from lab.checking.history import Plan
from lab.probe import etcd
from lab.probe.etcd import Node, node
from lab.probe.instrument import Limits
from lab.probe.sessions import WRITE_SHARE, run
from lab.probe.target import NotNow, Shown, TargetError
from tests.support.delaying_proxy import DelayingProxy
from tests.support.etcd_cluster import DELAY_SECONDS, Member, running
from tests.support.probing import require_calibrated, require_sentence
from tests.support.until import until

PASSWORD = "a-password"
SLOWLY = Limits(writes_per_second=6.0, seconds=2.0)  # a write takes two delays, and more on a busy machine
pytestmark = [pytest.mark.needs("etcd"), pytest.mark.xdist_group("etcd")]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Member]]:
    with running(tmp_path_factory.mktemp("etcd")) as found:
        yield found


@pytest.fixture
def delayed(members: list[Member]) -> Iterator[None]:
    """Members get each other's messages late."""
    for member in members:
        member.peer.delay_seconds = DELAY_SECONDS
    yield
    for member in members:
        member.peer.delay_seconds = 0.0


@pytest.fixture
def opened() -> Iterator[Any]:
    with ExitStack() as stack:

        def open_node(member: Member, user: str = "", password: str | None = None) -> Node:
            found = node(f"http://{user and f'{user}@'}127.0.0.1:{member.port}", password)
            stack.callback(found.close)
            return found

        yield open_node


@pytest.fixture
def primary(members: list[Member], opened: Any) -> Iterator[Node]:
    """The leader, prepared for a run; at the end nothing of the run is left."""
    found: Node = opened(members[0])
    found.prepare()
    yield found
    found.remove()
    assert everything(members[0]) == ([], [])


def everything(member: Member) -> tuple[list[Any], list[Any]]:
    """All keys and all leases."""
    keys = member.post("kv/range", key="AA==", range_end="AA==").get("kvs", [])
    return keys, member.post("lease/leases").get("leases", [])


def test_a_write_is_on_the_leader_at_once_and_on_a_follower_one_delay_later(
    members: list[Member], primary: Node, opened: Any, delayed: None
) -> None:
    follower = opened(members[1])
    assert follower.read(["a", "b"]) == Shown({}, is_replica=True)
    primary.write("a", 7)
    acknowledged = time.monotonic()
    assert primary.read(["b", "a"]) == Shown({"a": 7}, is_replica=False)
    until(lambda: follower.read(["a"]).numbers == {"a": 7})
    assert time.monotonic() - acknowledged >= DELAY_SECONDS / 2


def test_a_write_that_arrives_late_does_not_replace_a_later_one(primary: Node) -> None:
    for number in 10, 9:
        primary.write("a", number)
    assert primary.read(["a"]).numbers == {"a": 10}


def test_what_a_run_leaves_behind_expires(members: list[Member], primary: Node, opened: Any) -> None:
    opened(members[0]).write("a", 1)
    keys, leases = everything(members[0])
    assert {key["lease"] for key in keys} == {lease["ID"] for lease in leases}
    assert len(keys) == 2
    assert int(members[0].post("lease/timetolive", ID=leases[0]["ID"])["TTL"]) <= 3600


def test_the_lease_is_renewed_while_writes_go_on(members: list[Member], primary: Node, monkeypatch: Any) -> None:
    asked: list[str] = []
    send = Node._send
    monkeypatch.setattr(Node, "_send", lambda own, path, body: asked.append(path) or send(own, path, body))
    now = [0.0]
    found = Node(members[0].url, None, None, lambda: now[0])
    for now[0] in 0.0, 700.0, 800.0, 1400.0:
        found.write("a", 1 + int(now[0]))
    assert asked.count("lease/keepalive") == 2
    found.close()


def test_the_end_of_a_run_leaves_no_key_and_no_lease(members: list[Member], opened: Any) -> None:
    found = opened(members[0])
    for _ in range(2):
        found.prepare()
    found.write("a", 1)
    for _ in range(2):
        found.remove()
    assert everything(members[0]) == ([], [])
    with pytest.raises(TargetError, match="removed during the run"):
        opened(members[0]).write("a", 2)


@pytest.mark.parametrize("key", ["lab_probe/", "lab_probe/theirs"])
def test_keys_that_no_probe_created_are_neither_used_nor_removed(key: str, members: list[Member], opened: Any) -> None:
    found = opened(members[0])
    members[0].post("kv/put", key=etcd._encoded(key), value=etcd._encoded("theirs"))
    for refused in found.prepare, found.remove:
        with pytest.raises(TargetError, match="keys exist below lab_probe/, and lab probe did not create them"):
            refused()
    assert members[0].post("kv/deleterange", key=etcd._encoded(key))["deleted"] == "1"


def test_the_settings_name_the_cluster_the_role_and_what_a_client_reads_by_default(
    members: list[Member], opened: Any
) -> None:
    leader, *followers = (opened(member).settings() for member in members)
    assert {found.identity for found in followers} == {leader.identity}
    assert (leader.values["role"], leader.warnings) == ("leader", ())
    assert followers[0].values["role"] == "follower"
    assert "linearizable by default, and never stale" in followers[0].warnings[0]


def test_a_lost_connection_is_opened_again(members: list[Member], primary: Node) -> None:
    with DelayingProxy.running(members[0].port, 0.0) as proxy:
        found = node(f"http://127.0.0.1:{proxy.port}", None)
        found.write("a", 1)
        proxy.cut()
        for failed in (lambda: found.write("a", 2)), lambda: found.read(["a"]):
            with pytest.raises(NotNow):
                failed()
        proxy.mend()
        assert found.read(["a"]).numbers == {"a": 1}
        found.close()


def test_a_dry_run_changes_nothing(members: list[Member], opened: Any) -> None:
    before = members[0].status()["header"]["revision"]
    found = opened(members[0]).describe()
    assert (found.missing, len(found.statements)) == ((), 4)
    assert members[0].status()["header"]["revision"] == before


def test_every_bracket_ends_after_three_delays(members: list[Member], opened: Any, delayed: None) -> None:
    """To a follower, back, and to the followers again; the writer waits for the first two."""
    found = require_calibrated(opened(members[0]), opened(members[1]), opened(members[2]), 3 * DELAY_SECONDS, SLOWLY)
    assert all(one.acked >= one.sent + 2 * DELAY_SECONDS for one in found.replicas[0].brackets)
    assert everything(members[0]) == ([], [])


def test_sessions_that_read_all_members_in_turn_miss_their_own_writes(members: list[Member], delayed: None) -> None:
    plan = Plan("observed", sessions=3, keys=3, seconds=2.0, write_share=WRITE_SHARE, positions=False)
    nodes = [partial(node, member.url, None) for member in members]
    found = run(nodes, plan, "round-robin", Limits(writes_per_second=30.0), stop=threading.Event())
    assert (found.ended, found.not_removed) == ("", "")
    judgements = {verdict.guarantee: verdict.judgement for verdict in promises.judge(found.history)}
    assert judgements["read_your_writes"] == "violated"
    assert {judgements[name] for name in ("no_lost_write", "no_phantom_write", "convergence")} == {"held"}
    assert everything(members[0]) == ([], [])


# -- sentences ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def user(members: list[Member]) -> Iterator[str]:
    """A user without rights, on a cluster that requires one."""
    post = members[0].post
    for name in "root", "lab_probe":
        post("auth/user/add", name=name, password=PASSWORD)
        post("auth/role/add", name=name)
        post("auth/user/grant", user=name, role=name)
    post("auth/enable")
    yield "lab_probe"
    as_root(members[0], "auth/disable")
    for name in "root", "lab_probe":
        post("auth/user/delete", name=name)
        post("auth/role/delete", role=name)


def as_root(member: Member, path: str, **body: Any) -> None:
    admin = Node(member.url, "root", PASSWORD, time.monotonic)
    admin._require(path, body)
    admin.close()


def test_the_right_that_an_error_gives_is_enough(members: list[Member], user: str, opened: Any) -> None:
    own = opened(members[0], user, PASSWORD)
    grant = "etcdctl role grant-permission ROLE readwrite --prefix=true lab_probe/"
    for refused in own.prepare, lambda: own.read(["a"]), own.remove:
        with pytest.raises(TargetError) as raised:
            refused()
        assert str(raised.value) == f"{own.name}: user lab_probe lacks a right: {grant}"
    assert own.describe().missing == (grant,)
    permission = {"permType": "READWRITE", **etcd._prefix()}
    as_root(members[0], "auth/role/grant", name=user, perm=permission)
    assert own.describe().missing == ()
    own.prepare()
    own.write("a", 1)
    own._token = "expired.1"
    assert own.read(["a"]).numbers == {"a": 1}
    own.remove()


def test_a_wrong_password_or_no_user_is_named(members: list[Member], user: str, opened: Any) -> None:
    for found, said in (
        (opened(members[0], user, "wrong"), "invalid user ID or password"),
        (opened(members[0]), "user name is empty"),
    ):
        for refused in found.prepare, lambda found=found: found.read(["a"]):
            with pytest.raises(TargetError, match=said):
                refused()


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid:2379"])
def test_a_wrong_host_is_an_error_of_one_line(host: str) -> None:
    found = node(f"http://{host}", None)
    require_sentence(found, "no answer: ", f"^{host}: ")


@pytest.mark.parametrize("url", ["db1:2379", "http://db1:port", "http://", "http://me:secret@db1", "http://db1/v3?x=1"])
def test_an_invalid_address_is_refused_without_repeating_a_password(url: str) -> None:
    with pytest.raises(TargetError) as raised:
        node(url, None)
    assert "secret" not in str(raised.value)


# -- the last, because they change the cluster -------------------------------------------------------------------------


def test_another_leader_ends_the_run(members: list[Member], opened: Any) -> None:
    was_leader, follower = opened(members[0]), opened(members[1])
    was_leader.prepare()
    was_leader.write("a", 1)
    assert follower.read(["a"]).is_replica
    target = members[1].status()["header"]["member_id"]
    assert "error" not in members[0].post("maintenance/transfer-leadership", targetID=target)
    until(members[1].leads)
    assert not follower.read(["a"]).is_replica
    with pytest.raises(TargetError, match="the cluster elected another leader during the run"):
        until(lambda: was_leader.write("a", 2))
    follower.remove()
