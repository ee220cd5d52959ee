"""Simulated log servers, as redis-py's client sees them: what they answer, and what they do when they fail."""

from typing import Any

import pytest
from redis import exceptions

from broker.connection import connect
from lab.simulation.log_server import LOG
from lab.simulation.scheduler import START_NS
from tests.unit.lab.simulation.conftest import Caller, Logs

ADD = "return redis.call('xadd', KEYS[1], '*', 'value', ARGV[1])"


def add(client: Any, value: str) -> Any:
    return client.xadd("log", {"value": value})


def values(client: Any) -> list[str]:
    return [fields["value"] for _, fields in client.xrange("log")]


def group(logs: Logs) -> Any:
    """Make a group, and return a client that waits for answers long enough to block."""
    logs.client().xgroup_create("log", "group", "$", mkstream=True)
    return logs.client(answer_timeout_seconds=60)


def read(client: Any) -> Any:
    found = client.xreadgroup("group", "group", {"log": ">"}, 10, 5000)
    return [fields["value"] for _, fields in found[0][1]] if found else found


def test_a_blocked_read_of_a_group_is_woken_by_the_entry_of_another_client(logs: Logs, caller: Caller) -> None:
    reader = caller.call(lambda: group(logs))
    found = caller.begin(lambda: read(reader))
    caller.pause(3)
    assert not found
    caller.call(lambda: add(logs.client(), "a"))
    caller.pause(1)
    assert found == [["a"], pytest.approx(3, abs=0.2)]


def test_a_blocked_read_returns_nothing_once_its_virtual_time_is_up(logs: Logs, caller: Caller) -> None:
    reader = caller.call(lambda: group(logs))
    assert not caller.call(lambda: read(reader))
    assert logs.network.scheduler.now_seconds() == pytest.approx(5, abs=0.3)


def test_nothing_is_left_of_a_process_that_has_ended_and_no_entry_is_given_to_it(logs: Logs, caller: Caller) -> None:
    idle, reader = logs.client(), caller.call(lambda: group(logs))
    caller.call(idle.ping)
    caller.begin(lambda: read(reader))
    caller.pause(1)
    caller.scheduler.kill(caller.process)
    logs.connections.end(caller.process)
    caller.pause(1)
    next_one = Caller(caller.scheduler)
    next_one.call(lambda: add(logs.client(), "a"))
    assert next_one.call(lambda: logs.client().xpending("log", "group"))["pending"] == 0
    assert {channel.client for channel in logs.connections.open} == {next_one.process}


def test_a_stopped_server_breaks_connections_refuses_new_ones_and_accepts_them_once_it_has_started(
    logs: Logs, caller: Caller
) -> None:
    client, reader = logs.client(), caller.call(lambda: group(logs))
    caller.call(lambda: add(client, "a"))
    blocked = caller.begin(lambda: (read(reader), read(reader)))
    caller.pause(1)
    logs.stop(logs.first)
    caller.pause(1)
    assert isinstance(blocked[0], exceptions.ConnectionError)
    with pytest.raises(exceptions.ConnectionError, match="refused"):
        caller.call(client.ping)
    ids = logs.first.replication_ids
    logs.first.start()
    assert caller.call(lambda: values(client)) == ["a"]
    assert logs.first.replication_ids[0] != ids[0]


def test_a_server_that_starts_with_saved_content_lacks_what_came_after_it(logs: Logs, caller: Caller) -> None:
    client = logs.client()
    caller.call(lambda: add(client, "a"))
    saved = logs.first.content()
    caller.call(lambda: add(client, "b"))
    logs.stop(logs.first)
    caller.pause(1)
    logs.first.start(saved)
    assert caller.call(lambda: values(client)) == ["a"]


def test_a_frozen_server_answers_once_it_is_thawed(logs: Logs, caller: Caller) -> None:
    client, reader = logs.client(answer_timeout_seconds=60), caller.call(lambda: group(logs))
    blocked = caller.begin(lambda: read(reader))
    caller.pause(1)
    logs.first.freeze()
    found = caller.begin(lambda: add(client, "a"))  # over a new connection: the kernel accepts it
    caller.pause(10)
    assert not found
    assert not blocked
    logs.first.thaw()
    caller.pause(1)
    assert isinstance(found[0], str)
    assert not blocked[0], "its time was up before"
    assert caller.call(lambda: values(client)) == ["a"]


def test_a_frozen_server_executes_afterwards_what_was_sent_by_a_client_that_has_given_up(
    logs: Logs, caller: Caller
) -> None:
    client = logs.client()
    caller.call(client.ping)
    logs.first.freeze()
    with pytest.raises(exceptions.TimeoutError):
        caller.call(lambda: add(client, "a"))
    caller.pause(1)
    logs.first.thaw()
    assert caller.call(lambda: values(client)) == ["a"]
    assert len(logs.connections.open) == 1


def test_what_an_ended_process_had_sent_is_executed_and_told_as_its_own(logs: Logs, caller: Caller) -> None:
    told: list[tuple[object, str]] = []
    logs.first.on_write = lambda client, name, _: told.append((client, name))
    client = logs.client()
    caller.call(client.ping)
    logs.first.freeze()
    caller.begin(lambda: add(client, "a"))
    caller.pause(1)
    caller.scheduler.kill(caller.process)
    logs.connections.end(caller.process)
    caller.pause(1)
    assert not told
    logs.first.thaw()
    assert told == [(caller.process, "xadd")]


def test_a_demoted_server_refuses_writes_and_tells_who_blocks(logs: Logs, caller: Caller) -> None:
    client, other, reader = logs.client(), logs.client(), caller.call(lambda: group(logs))
    caller.call(lambda: (client.ping(), other.ping()))
    blocked = caller.begin(lambda: read(reader))
    caller.pause(1)
    logs.first.demote()
    caller.pause(1)
    assert "UNBLOCKED" in str(blocked[0])
    assert blocked[1] < 2
    for write in (lambda: add(client, "a"), lambda: other.xgroup_destroy("log", "group")):
        with pytest.raises(exceptions.ReadOnlyError):
            caller.call(write)
    with pytest.raises(exceptions.ConnectionError, match="replica of another"):
        caller.call(lambda: values(client))


def test_nothing_of_a_transaction_is_executed_if_one_of_its_commands_is_refused(logs: Logs, caller: Caller) -> None:
    client = logs.client()
    script = client.register_script(ADD)
    caller.call(lambda: script(keys=["log"], args=["a"]))

    def transaction() -> Any:
        pipe = client.pipeline(transaction=True)
        pipe.set("other", "x")
        pipe.evalsha(script.sha, 1, "log", "b")
        return pipe.execute()

    logs.first.refuses = "MISCONF its disk is full"
    with pytest.raises(exceptions.ResponseError, match="disk is full"):
        caller.call(transaction)
    logs.first.refuses = ""
    assert caller.call(lambda: client.get("other")) is None
    logs.first.demote()
    with pytest.raises(exceptions.ReadOnlyError):
        caller.call(transaction)
    logs.first.is_master = True
    assert caller.call(lambda: client.get("other")) is None
    assert caller.call(transaction)[0] is True
    assert len(caller.call(lambda: values(client))) == 2


def test_a_promoted_server_goes_on_with_what_it_had_received_and_with_the_formers_id_as_its_second(
    logs: Logs, caller: Caller
) -> None:
    client: Any = connect("redis+sentinel://127.0.0.1:26379/lab14/0")
    caller.call(lambda: add(client, "a"))
    received = logs.first.content()
    caller.call(lambda: add(client, "b"))
    logs.second.promote(received, logs.first)
    logs.sentinel.promote(logs.second)
    logs.first.demote()
    with pytest.raises(exceptions.ReadOnlyError):
        caller.call(lambda: add(client, "c"))
    caller.call(lambda: add(client, "d"))
    assert caller.call(lambda: values(client)) == ["a", "d"]
    found = caller.call(lambda: client.info("replication"))
    assert found["role"] == "master"
    assert found["master_replid2"] == logs.first.replication_ids[0] != found["master_replid"]


def test_it_says_what_each_group_has_left_and_what_is_pending_for_it(logs: Logs) -> None:
    server = logs.first
    assert (server.lags(), server.pending("r1")) == ({}, 0), "without a log"
    for name in ("1-1", "1-2", "1-3"):
        server.command("XADD", LOG, name, "value", "a")
    assert (server.lags(), server.pending("r1")) == ({}, 0), "without a group"
    server.command("XGROUP", "CREATE", LOG, "r1", "0")
    server.command("XGROUP", "CREATE", LOG, "r2", "1-2")
    server.command("XREADGROUP", "GROUP", "r1", "r1", "COUNT", "1", "STREAMS", LOG, ">")
    assert server.lags() == {"r1": (2, 2), "r2": (None, 1)}, "the server does not know how much r2 has read"
    assert (server.pending("r1"), server.pending("r2")) == (1, 0)
    server.command("XTRIM", LOG, "MAXLEN", "0")
    assert server.lags() == {"r1": (0, 0), "r2": (0, 0)}


def test_a_script_has_to_be_loaded_again_after_a_restart(logs: Logs, caller: Caller) -> None:
    client = logs.client()
    sha = caller.call(lambda: client.script_load(ADD))
    caller.call(lambda: client.evalsha(sha, 1, "log", "a"))
    logs.stop(logs.first)
    caller.pause(1)
    logs.first.start()
    with pytest.raises(exceptions.NoScriptError):
        caller.call(lambda: client.evalsha(sha, 1, "log", "b"))
    caller.call(lambda: client.register_script(ADD)(keys=["log"], args=["c"]))
    assert caller.call(lambda: values(client)) == ["a", "c"]


def test_its_clock_is_the_virtual_one_with_its_offset(logs: Logs, caller: Caller) -> None:
    logs.first.offset_us = 90_000_000
    caller.pause(10)
    seconds, microseconds = caller.call(lambda: logs.client().time())
    assert seconds + microseconds / 1e6 == pytest.approx(START_NS / 1e9 + 100, abs=0.3)
