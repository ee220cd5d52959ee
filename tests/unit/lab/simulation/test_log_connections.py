"""Connections to simulated log servers: the order of replies and messages, and links that are cut."""

from typing import Any

import pytest
from redis import exceptions

from tests.unit.lab.simulation.conftest import Caller, Logs

ENDS = ("client", "log1")


def connected(logs: Logs, caller: Caller) -> Any:
    client = logs.client()
    assert caller.call(client.ping)
    return client


def test_the_replies_of_a_pipeline_come_in_the_order_of_its_commands(logs: Logs, caller: Caller) -> None:
    client = logs.client()

    def work(own: str) -> Any:
        pipe = client.pipeline(transaction=False)
        for _ in range(50):
            pipe.incr(own)
        return pipe.execute()

    found = [caller.begin(lambda own=own: work(own)) for own in ("a", "b")]  # type: ignore[misc]
    caller.pause(1)
    assert [one[0] for one in found] == [list(range(1, 51))] * 2


def test_a_command_whose_reply_is_lost_was_executed(logs: Logs, caller: Caller) -> None:
    client = connected(logs, caller)
    logs.network.cut(*reversed(ENDS))
    with pytest.raises(exceptions.TimeoutError):
        caller.call(lambda: client.incr("count"))
    assert caller.scheduler.now_seconds() == pytest.approx(2, abs=0.2)
    logs.network.mend(*reversed(ENDS))
    assert caller.call(lambda: client.get("count")) == "1"


def test_a_command_that_is_lost_was_not_executed_but_one_that_is_late_is(logs: Logs, caller: Caller) -> None:
    counts = []
    for number in range(20):
        client = connected(logs, caller)
        logs.network.cut(*ENDS)
        with pytest.raises(exceptions.TimeoutError):
            caller.call(lambda: client.incr(f"count{number}"))  # noqa: B023
        logs.network.mend(*ENDS)
        counts.append(caller.call(lambda: client.get(f"count{number}")))  # noqa: B023
    assert set(counts) == {None, "1"}


def test_no_connection_is_made_through_a_cut_link(logs: Logs, caller: Caller) -> None:
    logs.network.cut(*reversed(ENDS))
    with pytest.raises(exceptions.ConnectionError, match="Timeout connecting"):
        caller.call(logs.client().ping)
    assert not logs.connections.open


def test_messages_reach_each_subscriber_in_their_order(logs: Logs, caller: Caller) -> None:
    subscribers = [logs.client().pubsub(ignore_subscribe_messages=True) for _ in range(3)]

    def messages(subscriber: Any) -> list[str]:
        found: list[str] = []
        while len(found) < 20:
            if message := subscriber.get_message(timeout=1):
                found.append(message["data"])
        return found

    for subscriber in subscribers:
        caller.call(lambda subscriber=subscriber: subscriber.subscribe("channel"))  # type: ignore[misc]
    found = [caller.begin(lambda subscriber=subscriber: messages(subscriber)) for subscriber in subscribers]  # type: ignore[misc]
    client = connected(logs, caller)
    sent = [str(number) for number in range(20)]
    assert caller.call(lambda: [client.publish("channel", text) for text in sent]) == [3] * 20
    caller.pause(1)
    assert [one[0] for one in found] == [sent] * 3
