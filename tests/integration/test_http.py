"""Real nodes: refusals, answers, and operation without the log server."""

import json
import socket
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from openapi_spec_validator import validate

from lab.local.layout import LOG_SERVER
from lab.local.supervisor import Lab
from tests.integration.conftest import DELAYS_MS, converge, frozen, is_healthy, metric, node_urls, set_delays
from tests.support.http import POOL, ask, get, post
from tests.support.until import until


def version(lab: Lab) -> str:
    position: str = get(f"{lab.primary_url}/version")["position"]
    return position


def refused(method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Return status and problem details of an answer, which must be a 4xx."""
    answer = POOL.request(method, url, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert 400 <= answer.status < 500, answer.data
    assert answer.headers["Content-Type"] == "application/problem+json"
    found = answer.json()
    assert {"type", "title", "status", "detail"} <= set(found)
    assert found["status"] == answer.status
    return answer.status, found


def body(key: object, value: object) -> bytes:
    return json.dumps({"key": key, "value": value}).encode()


BODIES = [
    b"", b"not json", b"[]", b"5", b"null", b'{"key":"k"}', b'{"value":1}', body(5, 1), body("", 1), body("x" * 513, 1),
    body("k", "x" * (256 * 1024 - 1)), b'{"key":"k","value":NaN}', b'{"key":"k","value":1e999}',
    b'{"key":"k","value":"\\ud800"}', b'{"key":"\\ud800","value":1}',
    b'{"key":"k","value":' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"key":"k","value":1e-400}', b'{"key":"k","value":[9007199254740993]}', b'{"key":"k","value":1,"value":2}',
    b'{"key":"k","value":' + b"1" * 5000 + b"}",
    b'{"key":"k","value":' + b"[" * 500_000, b" " * (2**20 + 1), b"\xff\xfe\x00", b'{"key":"k","value":1,"more":2}',
]  # fmt: skip


@pytest.mark.parametrize("raw", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("where", ["/data", "/write", "/write-and-read", "/write-and-wait"])
def test_an_invalid_body_is_refused_and_changes_nothing(lab: Lab, raw: bytes, where: str) -> None:
    before = version(lab)
    url = lab.primary_url if where == "/data" else lab.client_url
    _, found = refused("POST", url + where, raw)
    assert found["outcome"] == "not_applied"
    assert version(lab) == before


def test_a_value_of_the_maximum_size_is_accepted(fresh: Lab) -> None:
    value = "x" * (256 * 1024 - 2)
    written = post(f"{fresh.primary_url}/data", {"key": "large", "value": value})
    for url in node_urls(fresh):
        assert get(f"{url}/data/large?min_position={written['position']}&timeout_ms=5000")["value"] == value


DELAYS: list[Any] = [
    *[{"replica": "lab14-replica1", "delay_ms": wrong} for wrong in (-1, "500.5", "500", 600_001, None, True, [1])],
    {"replica": "lab14-replica1"},
    {"delay_ms": 5},
    {"replica": "lab14-replica1", "replica_url": "http://lab14-replica1:8001", "delay_ms": 5},
    {"replica": "lab14-replica1", "delay_ms": 5, "model": {"kind": "fixed", "ms": 5}},
    {"replica": "lab14-replica1", "model": {"kind": "nonsense"}},
    {"replica": "lab14-replica1", "ack_delay_ms": -1},
    {"replica": 7, "delay_ms": 5},
]


@pytest.mark.parametrize("wrong", DELAYS, ids=range(len(DELAYS)))
def test_an_invalid_delay_is_refused_and_changes_nothing(lab: Lab, wrong: Any) -> None:
    before = get(f"{lab.primary_url}/admin/replication-delays")
    refused("POST", f"{lab.primary_url}/admin/replication-delay", json.dumps(wrong).encode())
    assert get(f"{lab.primary_url}/admin/replication-delays") == before


def test_a_delay_that_is_not_a_number_is_refused(lab: Lab) -> None:
    raw = b'{"replica":"lab14-replica1","delay_ms":NaN}'
    assert refused("POST", f"{lab.primary_url}/admin/replication-delay", raw)[0] == 400


@pytest.mark.parametrize("name", ["replica", "replica_url"])
def test_the_error_for_an_unknown_replica_lists_the_known_ones(lab: Lab, name: str) -> None:
    raw = json.dumps({name: "http://lab14-replica9:8009", "delay_ms": 5}).encode()
    _, found = refused("POST", f"{lab.primary_url}/admin/replication-delay", raw)
    assert found["known_replicas"] == ["lab14-replica1", "lab14-replica2"]
    assert "lab14-replica2" in found["detail"]


@pytest.mark.parametrize("name", ["lab14-replica2", "http://lab14-replica2:8002", "http://lab14-replica2", "own url"])
def test_a_replica_is_named_by_id_or_url(lab: Lab, name: str) -> None:
    url = lab.replica_urls["lab14-replica2"] if name == "own url" else name
    found = post(f"{lab.primary_url}/admin/replication-delay", {"replica_url": url, "delay_ms": 1234})
    port = urlsplit(lab.replica_urls["lab14-replica2"]).port
    named = f"http://lab14-replica2:{port}"
    assert found["status"] == "updated"
    assert (found["replica_url"], found["delay_ms"], found["all_delays"][named]) == (named, 1234, 1234)


QUERIES = [
    *["/version?timeout_ms=-1", "/version?timeout_ms=600001", "/version?timeout_ms=x", "/version?timeout_ms=1.5"],
    *["/version?min_position=x", "/version?min_position=1-", "/version?min_version=-1", "/version?min_position=01-1"],
    *["/data?limit=0", "/data?limit=10001", "/data?limit=x", "/data?cursor=%21", "/data?unknown=1", "/data/k?limit=1"],
    *["/version?timeout_ms=1&timeout_ms=2", "/data/k?min_version=0&min_version=0", "/version?timeout_ms=&timeout_ms=1"],
    *["/version?min_version=1e3", "/nothing", "/data/", "/admin/replication-delay?x=1"],
]


@pytest.mark.parametrize("query", QUERIES)
def test_invalid_parameters_and_paths_are_refused(lab: Lab, query: str) -> None:
    for url in node_urls(lab):
        refused("GET", url + query)


WRITE_QUERIES = [
    *["/write-and-wait?timeout_ms=-1", "/write-and-wait?timeout_ms=600001", "/write?acks=-1", "/write?acks=x"],
    *["/write?acks=3", "/write?acks=1&timeout_ms=-1", "/write?more=1"],
]


@pytest.mark.parametrize("query", WRITE_QUERIES)
def test_invalid_parameters_of_a_write_change_nothing(lab: Lab, query: str) -> None:
    before = version(lab)
    refused("POST", lab.client_url + query, body("k", 1))
    if query.startswith("/write?"):
        refused("POST", lab.primary_url + query.replace("/write", "/data"), body("k", 1))
    assert version(lab) == before


READ_QUERIES = [
    *["level=linear", "level=bounded", "level=strong&max_lag_ms=1", "level=bounded&max_lag_ms=-1", "replica=unknown"],
    *["level=bounded&max_lag_versions=1.5", "level=strong&replica=lab14-replica1", "timeout_ms=-1", "unknown=1"],
]


@pytest.mark.parametrize("query", READ_QUERIES)
def test_invalid_parameters_of_a_read_at_a_level_are_refused(lab: Lab, query: str) -> None:
    assert refused("GET", f"{lab.client_url}/read/k?{query}")[0] == 400


@pytest.mark.parametrize("token", ["", "1", "1-", "x-y", "01-1", "1 -1", "9" * 40])
def test_a_token_that_is_not_a_position_is_refused(lab: Lab, token: str) -> None:
    for level in ("session", "eventual"):
        assert refused("GET", f"{lab.client_url}/read/k?level={level}", None, Lab_Position=token)[0] == 400


def test_an_age_that_is_not_a_nonnegative_number_is_refused(lab: Lab) -> None:
    for age in ("-1", "x", "nan", "inf", "86400001"):
        assert refused("GET", f"{lab.primary_url}/position?age_ms={age}")[0] == 400


def test_an_unsupported_method_is_refused(lab: Lab) -> None:
    for method, url in (
        ("PUT", f"{lab.primary_url}/data"),
        ("POST", f"{lab.client_url}/status"),
        ("BREW", lab.primary_url),
    ):
        status, _ = refused(method, url, b"{}")
        assert status in {404, 405}


def test_a_replica_refuses_writes_and_names_the_primary(lab: Lab) -> None:
    before = version(lab)
    for url in lab.replica_urls.values():
        for method, path in (("POST", "/data"), ("DELETE", "/data/k")):
            status, found = refused(method, url + path, body("k", 1))
            assert (status, found["primary_url"]) == (403, lab.primary_url)
    assert version(lab) == before


def test_requests_from_foreign_web_pages_are_refused(lab: Lab) -> None:
    before = version(lab)
    for url in (f"{lab.primary_url}/data", f"{lab.client_url}/write-and-read"):
        assert refused("POST", url, body("k", 1), Sec_Fetch_Site="cross-site")[0] == 403
        assert refused("POST", url, body("k", 1), Origin="http://evil.example")[0] == 403
        assert refused("POST", url, body("k", 1), Host="evil.example")[0] == 403
    assert version(lab) == before


def test_a_chunked_body_is_accepted_up_to_the_limit(lab: Lab) -> None:
    answer = POOL.request(
        "POST", f"{lab.primary_url}/data", body=iter([b'{"key":"chunked",', b'"value":1}']), chunked=True
    )
    assert answer.status == 200
    endless = POOL.request("POST", f"{lab.primary_url}/data", body=iter([b" " * 2**16] * 40), chunked=True)
    assert endless.status == 413


def test_malformed_requests_do_no_harm(lab: Lab) -> None:
    parts = urlsplit(lab.primary_url)
    for raw in (
        b"\x00\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /data HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ):
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as wire:
            wire.sendall(raw)
            wire.recv(4096)
    assert ask("GET", f"{lab.primary_url}/health")[0] == 200


KEYS = ["a/b", "a b", "ü/漢", "//", "%2F", "\x00", "'\"\\", "<img src=x onerror=alert(1)>", "x" * 512, "/"]


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_any_text_can_be_a_key(fresh: Lab, key: str) -> None:
    value = {"<b>": [key, None, 1.5, 2**70]}
    written = post(f"{fresh.primary_url}/data", {"key": key, "value": value})
    path = quote(key, safe="")
    for url in node_urls(fresh):
        found = get(f"{url}/data/{path}?min_position={written['position']}&timeout_ms=5000")
        assert (found["key"], found["value"], found["version"]) == (key, value, written["version"])
    status, deleted = ask("DELETE", f"{fresh.primary_url}/data/{path}")
    assert (status, deleted["version"]) == (200, written["version"] + 1)
    status, _ = ask("GET", f"{fresh.primary_url}/data/{path}")
    assert status == 404


def test_deleting_a_missing_key_is_a_404_and_takes_no_version(fresh: Lab) -> None:
    before = version(fresh)
    assert refused("DELETE", f"{fresh.primary_url}/data/missing")[0] == 404
    assert version(fresh) == before


def test_a_retry_with_the_same_idempotency_key_is_the_same_write(fresh: Lab) -> None:
    url = f"{fresh.primary_url}/data"
    first = ask("POST", url, {"key": "k", "value": 1}, Idempotency_Key="once")
    assert ask("POST", url, {"key": "k", "value": 1}, Idempotency_Key="once") == first
    status, found = ask("POST", url, {"key": "k", "value": 2}, Idempotency_Key="once")
    assert (status, found["outcome"]) == (422, "not_applied")
    assert version(fresh) == first[1]["position"]


def test_pages_contain_every_key_once(fresh: Lab) -> None:
    keys = sorted((f"k{number:03}" for number in range(25)), key=str.encode)
    for key in keys:
        written = post(f"{fresh.primary_url}/data", {"key": key, "value": key})
    for url in node_urls(fresh):
        get(f"{url}/data?min_position={written['position']}&timeout_ms=5000")
        seen: dict[str, Any] = {}
        cursor = ""
        while cursor is not None:
            page = get(f"{url}/data?limit=10&cursor={cursor}")
            assert len(page["data"]) <= 10
            seen |= page["data"]
            cursor = page["next"]
        assert list(seen) == keys


def test_min_position_is_a_guarantee_on_data(fresh: Lab) -> None:
    url = fresh.replica_urls["lab14-replica2"]
    set_delays(fresh, 20, 1000)
    written = post(f"{fresh.primary_url}/data", {"key": "k", "value": 1})
    status, found = ask("GET", f"{url}/data/k?min_position={written['position']}&timeout_ms=20")
    assert (status, found["min_position"]) == (504, written["position"])
    assert get(f"{url}/data/k?min_position={written['position']}&timeout_ms=5000")["version"] == written["version"]
    post(f"{fresh.primary_url}/admin/reset")
    for node in node_urls(fresh):
        status, _ = ask("GET", f"{node}/data?min_position={written['position']}")
        assert status == 412
        found = get(f"{node}/version?min_position={written['position']}")
        assert found["reached"] is False


def test_applied_after_ms_is_that_of_the_requested_version(fresh: Lab) -> None:
    first = post(f"{fresh.primary_url}/data", {"key": "k", "value": 1})
    last = post(f"{fresh.primary_url}/data", {"key": "k", "value": 2})
    for url, delay_ms in zip(fresh.replica_urls.values(), DELAYS_MS, strict=True):
        get(f"{url}/version?min_position={last['position']}&timeout_ms=5000")
        for written in (first, last):
            found = get(f"{url}/version?min_version={written['version']}")
            assert found["reached"]
            assert delay_ms <= found["applied_after_ms"]


def test_answers_name_position_and_source(fresh: Lab) -> None:
    for url, source in zip(node_urls(fresh), ["lab14-primary", *fresh.replica_urls], strict=True):
        for path in ("/version", "/data", "/digest"):
            answer = POOL.request("GET", url + path)
            assert answer.headers["Lab-Source"] == source
            assert answer.headers["Lab-Position"] == answer.json()["position"]


def test_each_node_describes_itself(lab: Lab) -> None:
    for url in [*node_urls(lab), lab.client_url, lab.worker_url]:
        found = get(f"{url}/openapi.json")
        validate(found)
        assert {"200", "503", "default"} <= set(found["paths"]["/health"]["get"]["responses"])


def headers(operation: dict[str, Any]) -> dict[str, Any]:
    return {found["name"]: found["schema"] for found in operation["parameters"] if found["in"] == "header"}


def test_openapi_describes_statuses_media_types_headers_lengths_and_patterns(lab: Lab) -> None:
    primary, replica, client = (
        get(f"{url}/openapi.json") for url in (lab.primary_url, node_urls(lab)[1], lab.client_url)
    )
    assert set(primary["paths"]["/data/batch"]["post"]["responses"]) == {"200", "207", "default"}
    assert set(client["paths"]["/experiments"]["post"]["responses"]) == {"202", "default"}
    assert set(replica["paths"]["/data"]["post"]["responses"]) == {"403", "default"}
    assert list(client["paths"]["/events"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "Last-Event-ID" in headers(client["paths"]["/events"]["get"])
    for where in (primary["paths"]["/data"]["post"], primary["paths"]["/data/{key}"]["delete"]):
        assert headers(where)["Idempotency-Key"]["pattern"] == r"^[!#-\[\]-~]{1,128}$"
    assert set(headers(client["paths"]["/write"]["post"])) == {"Idempotency-Key", "Lab-Position"}
    assert set(headers(client["paths"]["/read/{key}"]["get"])) == {"Lab-Position"}
    assert set(primary["paths"]["/version"]["get"]["responses"]["200"]["headers"]) == {"Lab-Position", "Lab-Source"}
    key = primary["components"]["schemas"]["WriteBody"]["properties"]["key"]
    assert (key["minLength"], key["maxLength"], key["not"]) == (1, 512, {"enum": [".", ".."]})
    queries = {found["name"]: found["schema"] for found in primary["paths"]["/version"]["get"]["parameters"]}
    assert queries["min_position"]["pattern"].startswith("^(0|[1-9]")
    assert "null" not in str(queries["min_version"])


def test_write_and_wait_lists_the_missing_replicas_at_its_deadline(fresh: Lab) -> None:
    set_delays(fresh, 20, 10_000)
    before = metric(fresh.client_url, "ec_consistency_window_seconds_count")
    found = post(f"{fresh.client_url}/write-and-wait?timeout_ms=1000", {"key": "k", "value": 1})
    assert (found["consistency_achieved"], found["consistency_time_ms"]) == (False, None)
    assert found["missing"] == ["lab14-replica2"]
    assert found["replicas"]["lab14-replica1"]["applied_after_ms"] >= 20
    after = metric(fresh.client_url, "ec_consistency_window_seconds_count")
    label = '{outcome="timeout"}'
    assert after[label] == before[label] + 1


def test_an_unreachable_node_is_reported_next_to_the_other_nodes(fresh: Lab) -> None:
    with frozen(fresh.pids["lab14-replica2"]):
        found = get(f"{fresh.client_url}/read-compare")
        assert "error" in found["replicas"]["lab14-replica2"]
        assert found["replicas"]["lab14-replica1"]["version"] >= 0
        assert not found["analysis"]["all_consistent"]
        states = {replica["replica_id"]: replica for replica in get(f"{fresh.client_url}/status")["replicas"]}
        assert "error" in states["lab14-replica2"]
        assert "error" not in states["lab14-replica1"]
    converge(fresh)


def test_without_the_log_server_reads_continue_and_writes_report_their_outcome(fresh: Lab) -> None:
    written = post(f"{fresh.client_url}/write-and-wait", {"key": "kept", "value": 1})["write_result"]
    with frozen(fresh.pids[LOG_SERVER]):  # so that it is not restarted before it is inspected
        outcomes = set()
        for _ in range(2):
            answer = POOL.request("POST", f"{fresh.primary_url}/data", body=body("k", 1))
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "1"
            outcomes.add(answer.json()["outcome"])
        assert outcomes <= {"not_applied", "unknown"}
        for url in fresh.replica_urls.values():
            assert get(f"{url}/data/kept")["version"] == written["version"]
            assert get(f"{url}/version")["position"] == written["position"]
        assert ask("GET", f"{fresh.primary_url}/health")[0] == 503
        until(lambda: all(ask("GET", f"{url}/health")[0] == 503 for url in fresh.replica_urls.values()), 20)
        assert ask("GET", f"{fresh.client_url}/health")[1]["status"] == "degraded"
        assert "error" in get(f"{fresh.client_url}/read-compare")["primary"]
        assert metric(fresh.primary_url, "ec_replica_lag_seconds") == {}
    until(lambda: is_healthy(fresh), 30)
    post(f"{fresh.primary_url}/data", {"key": "after", "value": 1})
    converge(fresh)


def test_lag_is_0_when_idle_and_grows_while_a_replica_is_stopped(fresh: Lab) -> None:
    replica = '{replica="lab14-replica1"}'
    converge(fresh)
    until(lambda: metric(fresh.primary_url, "ec_replica_lag_seconds")[replica] == 0)
    with frozen(fresh.pids["lab14-replica1"]):
        post(f"{fresh.primary_url}/data", {"key": "k", "value": 1})
        first = metric(fresh.primary_url, "ec_replica_lag_seconds")[replica]
        until(lambda: metric(fresh.primary_url, "ec_replica_lag_seconds")[replica] > first + 1)
        assert metric(fresh.primary_url, "ec_replica_lag_versions")[replica] == 1
    converge(fresh)
