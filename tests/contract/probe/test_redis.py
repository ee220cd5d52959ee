"""The probe's target on real servers of Valkey and Redis: a primary, a replica 200 ms late, and one without a delay."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from lab.checking import promises
from lab.checking.history import History, Plan
from lab.probe.instrument import Limits
from lab.probe.redis import Node, node
from lab.probe.sessions import WRITE_SHARE, run
from lab.probe.target import PREFIX, NotNow, Shown, TargetError
from tests.conftest import REAL_SERVERS
from tests.support.delaying_proxy import DelayingProxy
from tests.support.logserver import Server
from tests.support.probing import interrupted, require_calibrated, require_sentence
from tests.support.redis_replicas import DELAY_SECONDS, Replicas, address, running
from tests.support.until import until

USER, PASSWORD = "lab_probe", "a-password"
RULE = f"ACL SETUSER {USER} ~{PREFIX} +zmscore +role +info +exists +zadd +pexpire"


pytestmark = pytest.mark.xdist_group("probe of redis")  # the order of the file, and one start of the servers


@pytest.fixture(scope="module", params=REAL_SERVERS)
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
def opened() -> Iterator[Any]:
    with ExitStack() as stack:

        def open_node(server: Server, user: str = "", password: str | None = None) -> Node:
            found = node(address(server, user), password)
            stack.callback(found.close)
            return found

        yield open_node


@pytest.fixture
def primary(servers: Replicas, opened: Any) -> Iterator[Node]:
    """The primary, prepared for a run; at the end nothing of the run is left."""
    servers.attach()
    found: Node = opened(servers.primary)
    found.prepare()
    yield found
    found.remove()
    assert servers.primary.client.keys() == []


def numbers(found: Node, *keys: str) -> dict[str, int]:
    return found.read(keys).numbers


def test_a_write_is_on_the_primary_at_once_and_on_the_slow_replica_200_ms_later(
    servers: Replicas, primary: Node, opened: Any
) -> None:
    slow, fast = opened(servers.slow), opened(servers.fast)
    assert fast.read(["a", "b"]) == Shown({}, is_replica=True)
    began = time.monotonic()
    primary.write("a", 7)
    assert primary.read(["a", "b"]) == Shown({"a": 7}, is_replica=False)
    until(lambda: numbers(fast, "a"))
    assert until(lambda: numbers(slow, "a")) == {"a": 7}
    assert time.monotonic() - began >= DELAY_SECONDS


def test_a_write_that_arrives_late_does_not_replace_a_later_one(primary: Node) -> None:
    for number in 2, 1:
        primary.write("a", number)
    assert numbers(primary, "a") == {"a": 2}


def test_what_a_run_leaves_behind_expires_on_all_nodes(servers: Replicas, primary: Node) -> None:
    servers.primary.client.pexpire(PREFIX, 60_000)
    primary.write("a", 1)
    for server in servers.primary, servers.fast, servers.slow:
        assert until(lambda server=server: (left := server.client.pttl(PREFIX)) > 60_000 and left) <= 3_600_000


def test_the_end_of_a_run_leaves_no_key_and_no_connection(servers: Replicas, opened: Any) -> None:
    def connections() -> int:
        return len(servers.primary.client.client_list(_type="normal"))

    until(lambda: connections() == 1)
    found = opened(servers.primary)
    found.prepare()
    found.write("a", 1)
    found.remove()
    found.remove()
    found.close()
    assert servers.primary.client.keys() == []
    until(lambda: connections() == 1)


@pytest.mark.parametrize("create", [("SET", PREFIX, "x"), ("ZADD", PREFIX, "1", "theirs"), ("HSET", PREFIX, "a", "b")])
def test_a_key_that_no_probe_created_is_neither_used_nor_removed(
    create: tuple[str, ...], servers: Replicas, opened: Any
) -> None:
    admin, found = servers.primary.client, opened(servers.primary)
    admin.execute_command(*create)
    for refused in found.prepare, found.remove:
        with pytest.raises(TargetError, match=f"the key {PREFIX} exists, and lab probe did not create it"):
            refused()
    assert admin.delete(PREFIX) == 1


# -- what surprises a reader -------------------------------------------------------------------------------------------


def test_a_replica_whose_link_is_down_goes_on_answering(servers: Replicas, primary: Node, opened: Any) -> None:
    slow = opened(servers.slow)
    primary.write("a", 1)
    until(lambda: numbers(slow, "a") == {"a": 1})
    servers.proxy.cut()
    try:
        primary.write("a", 2)
        until(lambda: servers.slow.replication()["master_link_status"] == "down")
        assert slow.read(["a"]) == Shown({"a": 1}, is_replica=True)
        assert slow.settings().warnings == ["Its link to the primary is down: it answers with what it has."]
    finally:
        servers.proxy.mend()
    until(lambda: numbers(slow, "a") == {"a": 2})


def test_a_promotion_shows_in_the_next_read(servers: Replicas, primary: Node, opened: Any) -> None:
    fast = opened(servers.fast)
    assert fast.read(["a"]).is_replica
    servers.fast.client.replicaof("NO", "ONE")
    assert not fast.read(["a"]).is_replica
    servers.attach()
    assert fast.read(["a"]).is_replica


def test_a_primary_that_was_demoted_says_so_instead_of_failing_for_ever(servers: Replicas, opened: Any) -> None:
    was_primary = opened(servers.fast)
    servers.fast.client.replicaof("NO", "ONE")
    was_primary.write("a", 1)
    servers.attach()
    with pytest.raises(TargetError, match="has become a replica, and accepts no writes"):
        was_primary.write("a", 2)


def test_all_nodes_of_a_store_have_the_same_identity_and_another_store_does_not(
    servers: Replicas, primary: Node, opened: Any
) -> None:
    found = [opened(server).settings() for server in (servers.primary, servers.slow, servers.fast)]
    assert len({one.identity for one in found}) == 1
    servers.fast.client.replicaof("NO", "ONE")
    assert opened(servers.fast).settings().identity != found[0].identity


def test_settings_that_surprise_a_reader_are_named(servers: Replicas, primary: Node, opened: Any) -> None:
    admin, found = servers.primary.client, primary.settings()
    assert (found.values["role"], found.values["min-replicas-to-write"]) == ("master", "0")
    assert [warning.split()[0] for warning in found.warnings] == ["WAIT"]
    assert opened(servers.fast).settings().warnings == []
    admin.config_set("min-replicas-to-write", 1)
    admin.config_set("repl-disable-tcp-nodelay", "yes")
    found = primary.settings()
    named = [warning.split()[0] for warning in found.warnings]
    assert named == ["WAIT", "min-replicas-to-write", "repl-disable-tcp-nodelay"]
    admin.config_set("min-replicas-to-write", 3)
    with pytest.raises(NotNow, match="NOREPLICAS"):
        primary.write("a", 1)
    admin.config_set("min-replicas-to-write", 0)
    admin.config_set("repl-disable-tcp-nodelay", "no")
    primary.write("a", 1)


def test_every_bracket_ends_after_the_delay(servers: Replicas, opened: Any) -> None:
    servers.attach()
    require_calibrated(*map(opened, (servers.primary, servers.slow, servers.fast)), DELAY_SECONDS)
    assert servers.primary.client.keys() == []


def test_sessions_that_read_all_nodes_in_turn_miss_their_own_writes_and_go_back_in_time(servers: Replicas) -> None:
    servers.attach()
    plan = Plan("observed", sessions=3, keys=3, seconds=2.0, write_share=WRITE_SHARE, positions=False)
    nodes = [partial(node, address(server), None) for server in (servers.primary, servers.slow, servers.fast)]
    found = run(nodes, plan, "round-robin", Limits(writes_per_second=40.0), stop=threading.Event())
    assert (found.ended, found.not_removed) == ("", "")
    plan = replace(plan, max_lag_ms=10_000.0)
    verdicts = promises.judge(History(plan, found.history.operations))
    judgements = {verdict.guarantee: verdict.judgement for verdict in verdicts}
    stale = ("read_your_writes", "monotonic_reads", "real_time")
    assert judgements == {
        **dict.fromkeys(judgements, "held"),
        **dict.fromkeys(stale, "violated"),
        "consistent_prefix": "not tested",
    }
    assert servers.primary.client.keys() == []
    until(lambda: len(servers.primary.client.client_list(_type="normal")) == 1)


@pytest.mark.parametrize(
    ("act", "said", "status"),
    [
        (lambda servers: servers.fast.client.replicaof("NO", "ONE"), "became a primary during the run", 1),
        (lambda servers: servers.primary.client.replicaof("127.0.0.1", servers.fast.port), "has become a replica", 1),
        (lambda servers: servers.primary.client.client_kill_filter(_type="normal"), "of 50 writes in", 0),
        (lambda servers: servers.primary.client.delete(PREFIX), "50 of 50 writes in", 0),
    ],
    ids=["promotion", "demotion", "connections killed", "key deleted"],
)
def test_a_run_that_something_disturbs_is_one_sentence(servers: Replicas, act: Any, said: str, status: int) -> None:
    servers.attach()
    line = ("redis", "--primary", address(servers.primary), "--replica", address(servers.fast))

    def numbers() -> object:
        return tuple(servers.primary.client.zrange(PREFIX, 0, -1, withscores=True))

    try:
        done = interrupted(lambda: act(servers), numbers, *line, "--rate", "50", "--seconds", "1")
    finally:
        servers.primary.client.replicaof("NO", "ONE")
    assert (done.exit_code, said in " ".join(done.stdout.split())) == (status, True), done.output
    if said == "has become a replica":
        assert done.stderr.startswith("Not removed: ")
        servers.primary.client.delete(PREFIX)
    else:
        assert (done.stderr, servers.primary.client.keys()) == ("", [])
    until(lambda: len(servers.primary.client.client_list(_type="normal")) == 1)


def test_a_lost_connection_is_opened_again(servers: Replicas, primary: Node) -> None:
    with DelayingProxy.running(servers.primary.port, 0.0) as proxy:
        found = node(f"redis://127.0.0.1:{proxy.port}", None)
        found.write("a", 1)
        proxy.cut()
        for failed in (lambda: found.write("a", 2)), lambda: found.read(["a"]):
            with pytest.raises(NotNow):
                failed()
        proxy.mend()
        assert numbers(found, "a") == {"a": 1}
        found.close()


# -- sentences ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def user(servers: Replicas) -> Iterator[Any]:
    """A user without rights on every node."""
    servers.attach()
    nodes = [server.client for server in (servers.primary, servers.slow, servers.fast)]

    def allow(*rules: str) -> None:
        for client in nodes:
            client.execute_command("ACL", "SETUSER", USER, *rules)

    allow("reset", "on", f">{PASSWORD}")
    nodes[0].execute_command("ACL", "LOG", "RESET")
    yield allow
    for client in nodes:
        client.execute_command("ACL", "DELUSER", USER)


def test_the_rule_that_an_error_gives_is_enough(servers: Replicas, primary: Node, user: Any, opened: Any) -> None:
    own, fast = (opened(server, USER, PASSWORD) for server in (servers.primary, servers.fast))
    for refused in own.prepare, own.settings, lambda: own.write("a", 1), lambda: own.read(["a"]):
        with pytest.raises(TargetError) as raised:
            refused()
        assert str(raised.value) == f"{own.name}: user {USER} lacks a right; on every node: {RULE}"
    user(*RULE.split()[3:])
    servers.primary.client.execute_command("ACL", "LOG", "RESET")
    own.prepare()
    own.write("a", 1)
    assert own.settings().identity == fast.settings().identity
    until(lambda: numbers(fast, "a"))
    own.remove()
    denied = {entry["object"] for entry in servers.primary.client.acl_log()}
    assert denied <= {"config|get"}, "settings that need the right of an administrator are left out"


def test_a_dry_run_names_statements_and_the_missing_rights_and_changes_nothing(
    servers: Replicas, user: Any, opened: Any
) -> None:
    own, fast = (opened(server, USER, PASSWORD) for server in (servers.primary, servers.fast))
    assert own.describe().missing == [RULE]
    user(f"~{PREFIX}", "+zadd", "+role", "+info")
    assert own.describe().missing == [f"ACL SETUSER {USER} ~{PREFIX} +zmscore +exists +pexpire"]
    assert fast.describe().missing == [f"ACL SETUSER {USER} ~{PREFIX} +zmscore"]
    user(*RULE.split()[3:])
    found = own.describe()
    assert found.missing == []
    assert [statement.split()[0] for statement in found.statements] == ["ZADD", "ZMSCORE", "INFO", "EXISTS"]
    assert [statement.split()[0] for statement in fast.describe().statements] == ["ZMSCORE", "INFO"]
    assert servers.primary.client.keys() == []


def test_a_wrong_or_missing_password_is_named(servers: Replicas, user: Any, opened: Any) -> None:
    for password in "wrong", None:
        found = opened(servers.primary, USER, password)
        for refused in found.prepare, found.settings, found.describe, lambda found=found: found.read(["a"]):
            with pytest.raises(TargetError, match=f"user {USER} cannot log in: .*LAB_PROBE_PASSWORD"):
                refused()


def test_a_replica_given_as_the_primary_names_the_primary(servers: Replicas, primary: Node, opened: Any) -> None:
    for refused in opened(servers.fast).prepare, opened(servers.fast).remove:
        with pytest.raises(TargetError, match=f"is a replica; its primary is 127.0.0.1:{servers.primary.port}"):
            refused()


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid:6379"])
def test_a_wrong_host_is_an_error_of_one_line(host: str) -> None:
    found = node(f"redis://{host}", None)
    require_sentence(found, "connecting to", f"^{host}: .*")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("db1", "not an address such as redis://host:6379"),
        ("redis://db1:port", "not an address such as redis://host:6379"),
        ("redis://db1/x", "'x' is not the number of a database"),
        ("redis://me:secret@db1", "db1:6379: an address with a password is visible to others; use LAB_PROBE_PASSWORD"),
        ("redis://db1?password=secret", "db1:6379: an address with a password is visible"),
        ("rediss://db1?ssl_password=secret", "db1:6379: an address with a password is visible"),
        ("redis://db1?protocol=3", "db1:6379: unknown options in the address: protocol"),
        ("redis://db1?ssl_ca_certs=x", "db1:6379: unknown options in the address: ssl_ca_certs"),
    ],
)
def test_an_invalid_address_is_refused_without_repeating_a_password(url: str, said: str) -> None:
    with pytest.raises(TargetError) as raised:
        node(url, None)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://me@db1", "db1:6379"),
        ("rediss://[::1]:7000/2?ssl_ca_certs=/etc/ca.pem", "[::1]:7000/2"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_a_node_is_named_by_its_address(url: str, name: str) -> None:
    assert node(url, "secret").name == name
