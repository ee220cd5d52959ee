"""Many writes in one request: each is accepted or rejected independently, and nothing is written twice."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from broker.errors import LogError, LogUnreachable, OutcomeUnknown
from broker.log import Appended, Change, ReplicationLog
from broker.position import Position
from nodes.http import writing
from nodes.http.app import make_app
from nodes.primary import app as primary_app
from nodes.primary import batch
from nodes.primary.writes import Writes
from nodes.runtime.caller import RequestTimeout
from nodes.runtime.config import load
from nodes.runtime.tracing import Tracing
from tests.support.primary import make_parts


class Endpoint:
    """The endpoint on a log."""

    def __init__(self, log: Any) -> None:
        self.registry = CollectorRegistry()
        app, api = make_app(load("primary", {}), Tracing(), CollectorRegistry())
        parts = make_parts(log, self.registry)
        self.gate = parts.gate
        primary_app._add_batch(api, batch.Batches(Writes(parts, Tracing(), lambda: 0.0, lambda _: None)))
        self.http: FlaskClient = app.test_client()

    def send(self, raw: bytes | str, key: str | None = None) -> tuple[int, dict[str, Any]]:
        answer = self.http.post("/data/batch", data=raw, headers={"Idempotency-Key": key} if key else {})
        found: dict[str, Any] = json.loads(answer.data)
        return answer.status_code, found

    def counted(self, result: str) -> float | None:
        return self.registry.get_sample_value("ec_writes_total", {"result": result})


@pytest.fixture
def log(fake: Any) -> ReplicationLog:
    found = ReplicationLog(fake)
    found.open("open")
    return found


@pytest.fixture
def endpoint(log: ReplicationLog) -> Endpoint:
    return Endpoint(log)


ITEMS = [{"key": "a", "value": 1}, {"key": "b", "value": {"x": [None, "ü"]}}, {"key": "a", "value": 2}]


@pytest.mark.parametrize(
    "raw", [json.dumps(ITEMS), "\n".join(map(json.dumps, ITEMS)), "\n\r\n".join(map(json.dumps, ITEMS)) + "\n"]
)
def test_an_array_and_lines_are_the_same_batch(endpoint: Endpoint, log: ReplicationLog, raw: str) -> None:
    status, found = endpoint.send(raw, key="load")
    assert (status, found["acknowledged"], found["position"]) == (200, 3, "1-3")
    assert found["results"][2] == {"version": 3, "position": "1-3", "write_id": "load-3"}
    records = {record.key: record.value for record in log.page("", 10, 10**6).records}
    assert records == {"a": "2", "b": '{"x":[null,"ü"]}'}
    assert endpoint.gate.state.position == Position(1, 3)
    assert endpoint.counted("acknowledged") == 3


def test_an_invalid_item_has_its_own_answer(endpoint: Endpoint, log: ReplicationLog) -> None:
    lines = ['{"key":"a","value":1}', "{", "[]", '{"key":"","value":1}', '{"key":"b","value":1}']
    status, found = endpoint.send("\n".join(lines), key="mixed")
    assert (status, found["acknowledged"], found["not_applied"]) == (207, 2, 3)
    assert [item.get("status", 200) for item in found["results"]] == [200, 400, 400, 422, 200]
    assert "key" in found["results"][3]["detail"]
    assert found["results"][4]["write_id"] == "mixed-5"
    assert log.head().position == Position(1, 2)


def test_a_repeated_batch_writes_nothing_twice(endpoint: Endpoint, log: ReplicationLog) -> None:
    raw = json.dumps(ITEMS)
    assert endpoint.send(raw, key="k") == endpoint.send(raw, key="k")
    assert log.head().position == Position(1, 3)
    status, found = endpoint.send(json.dumps([{"key": "a", "value": "other"}]), key="k")
    assert (status, found["results"][0]["status"], found["position"]) == (207, 422, None)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


RULES = {  # valid JSON that the lab refuses
    "deep": f'{{"key":"b","value":{nested(65)}}}',
    "deeper than can be read": '{"key":"b","value":["]}",' + nested(50_000) + ',"\\"]"]}',
    "number": '{"key":"b","value":[1e400,",",{}]}',
    "underflow": '{"key":"b","value":{"a":1e-400,"b":"]"}}',
    "integer": "9007199254740993",
    "name": '{"key":"b","value":1,"key":"c"}',
    "text": '{"key":"b","value":"\\ud800"}',
    "field": '{"key":"b","value":1,"more":2}',
    "kind": "null",
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", ["[{}]", "\n{}\n", "[ {} \r\n]"])
def test_an_item_that_breaks_a_rule_is_refused_alone_in_an_array_as_in_lines(
    endpoint: Endpoint, log: ReplicationLog, rule: str, form: str
) -> None:
    items = [f'{{"key":"a","value":{nested(64)}}}', RULES[rule], '{"key":"c","value":[1,{"x":"]"}]}']
    status, found = endpoint.send(form.format(("," if "[" in form else "\n").join(items)), key="k")
    assert (status, found["acknowledged"], found["not_applied"]) == (207, 2, 1)
    assert [item.get("outcome") for item in found["results"]] == [None, "not_applied", None]
    assert [record.key for record in log.page("", 10, 10**6).records] == ["a", "c"]


@pytest.mark.parametrize("raw", ["", " ", "\n\r\n", "\t"])
def test_an_empty_batch_is_refused(endpoint: Endpoint, raw: str) -> None:
    assert endpoint.send(raw)[0] == 400


def test_a_line_ends_only_with_a_line_feed(endpoint: Endpoint) -> None:
    status, found = endpoint.send(
        '{"key":"a",\r"value":1}\r\n{"key":"b","value":"\u2028\u0085"}\r\n\r{"key":"c","value":1}'
    )
    assert (status, found["acknowledged"]) == (200, 3)
    status, found = endpoint.send('{"key":"a","value":1}\r{"key":"b","value":1}')
    assert (status, [item["status"] for item in found["results"]]) == (207, [400])


WHOLE = ["[", "[1", '[{"key":"a","value":NaN}]', "[{},]", "[,]", "[1 2]", "[] 1", "[{}]]", '[{"key":1e400']


@pytest.mark.parametrize("raw", WHOLE)
def test_an_invalid_batch_is_refused_as_a_whole(endpoint: Endpoint, log: ReplicationLog, raw: str) -> None:
    assert endpoint.send(raw)[0] == 400
    assert log.head().position == Position(1, 0)


def test_a_batch_is_bounded(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BATCH_ITEMS_MAX", 2)
    assert endpoint.send(json.dumps(ITEMS))[0] == 413
    monkeypatch.setattr(primary_app, "BATCH_BYTES_MAX", 10)
    assert endpoint.send(json.dumps(ITEMS[:1]))[0] == 413
    assert endpoint.send("[]", key="k" * 121)[0] == 400


def test_only_a_limited_number_of_batches_is_in_progress(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[int, dict[str, Any]]] = []

    def read_during_another(_: int) -> bytes:
        """While this batch is being read, the next one arrives."""
        found.append(endpoint.send("[]"))
        return b"[]"

    monkeypatch.setattr(primary_app, "raw_body", read_during_another)
    found.append(endpoint.send("[]"))
    assert [status for status, _ in found] == [503] + [200] * batch.BATCHES_MAX
    assert found[0][1]["outcome"] == "not_applied"


def test_bodies_that_do_not_arrive_occupy_no_place_forever(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def stalled(_: int) -> bytes:
        raise RequestTimeout("The body of this request did not arrive in time")

    with monkeypatch.context() as patched:
        patched.setattr(primary_app, "raw_body", stalled)
        assert {endpoint.send("[]")[0] for _ in range(batch.BATCHES_MAX + 1)} == {408}
    assert endpoint.send("[]")[0] == 200


class Failing:
    """A log that accepts a number of exchanges and then fails."""

    def __init__(self, takes: int, error: LogError) -> None:
        self.left, self.error = takes, error

    def append_many(self, changes: list[Change], _copies: int) -> list[Appended]:
        if not self.left:
            raise self.error
        self.left -= 1
        return [Appended(Position(1, number), 0, repeated=False) for number, _ in enumerate(changes, 1)]


@pytest.mark.parametrize(("error", "outcome"), [(LogUnreachable("x"), "not_applied"), (OutcomeUnknown("x"), "unknown")])
def test_if_the_log_fails_each_item_has_its_own_outcome(
    monkeypatch: pytest.MonkeyPatch, error: LogError, outcome: str
) -> None:
    monkeypatch.setattr(batch, "_EXCHANGE", 1)
    endpoint = Endpoint(Failing(1, error))
    status, found = endpoint.send(json.dumps(ITEMS))
    assert status == 207
    assert [item.get("outcome") for item in found["results"]] == [None, outcome, "not_applied"]
    assert [item.get("status") for item in found["results"]] == [None, 503, 503]
    assert (endpoint.counted("acknowledged"), endpoint.counted(outcome)) == (1, 1)
    status, found = Endpoint(Failing(0, error)).send(json.dumps(ITEMS))
    assert (status, found["outcome"]) == (503, outcome)
