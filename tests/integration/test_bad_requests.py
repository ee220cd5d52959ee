"""Requests that a library rejects: every node answers a 4xx with problem details, without a stack trace."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import node_urls
from tests.support.http import ask, get, post

WRITE = b'{"key":"k","value":1}'


def send(url: str, raw: bytes) -> tuple[int, Any]:
    """Send bytes, shut down the sending side, and return status and JSON body of the answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as wire:
        wire.sendall(raw)
        wire.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer
    return int(head.split()[1]), json.loads(body)


def request(method: bytes, path: bytes, *headers: bytes, body: bytes = b"", host: bytes = b"localhost") -> bytes:
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: " + host, b"Connection: close", *headers, b"", body]
    return b"\r\n".join(lines)


def chunked(body: bytes) -> bytes:
    return request(b"POST", b"/data", b"Transfer-Encoding: chunked", body=body)


def with_length(*headers: bytes, body: bytes = WRITE) -> bytes:
    return request(b"POST", b"/data", *headers, b"Content-Length: %d" % len(body), body=body)


BODIES = {
    "chunk size that is no number": chunked(b"zz\r\nabc\r\n0\r\n\r\n"),
    "negative chunk size": chunked(b"-5\r\nabc\r\n0\r\n\r\n"),
    "chunk without end": chunked(b"3\r\nabcXX\r\n0\r\n\r\n"),
    "chunk that is too short": chunked(b"ff\r\n" + WRITE),
    "chunk extension": chunked(b"3;a=\x01\r\nabc\r\n0\r\n\r\n"),
    "endless chunk size": chunked(b"0" * 10_000),
    "trailer": chunked(b"0\r\nbad trailer\r\n\r\n"),
    "no chunk": chunked(b""),
    "body that is shorter than its length": request(b"POST", b"/data", b"Content-Length: 100", body=WRITE),
    "transfer coding": request(b"POST", b"/data", b"Transfer-Encoding: gzip", body=WRITE),
}
HEADS = {
    "origin": with_length(b"Origin: http://[::1"),
    "origin that is not ASCII": with_length("Origin: http://a℀b".encode()),
    "host": request(b"GET", b"/version", host=b"[::1"),
    "two hosts": request(b"GET", b"/version", b"Host: localhost"),
    "length": request(b"POST", b"/data", b"Content-Length: +5", body=WRITE),
    "length of many digits": request(b"POST", b"/data", b"Content-Length: " + b"9" * 5000, body=WRITE),
    "prefix of the path": request(b"GET", b"/version?x=1", b"Script_Name: /x"),
    "forwarded scheme": request(b"GET", b"/version?x=1", b"X-Forwarded-Proto: ftp", b"X-Forwarded-Ssl: on"),
    "expectation": with_length(b"Expect: nonsense"),
    "header name": request(b"GET", b"/version", b"X\x00: x"),
    "long header": request(b"GET", b"/version", b"X: " + b"x" * 9000),
    "long path": request(b"GET", b"/data/" + b"x" * 9000),
    "bytes in the path": request(b"GET", b"/data/\xff"),
    "protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "path with a line break": request(b"GET", b"/nothing%0A2026-11-25%2012:00:00,000%20ERROR%20forged"),
}
NOT_UTF_8 = [b"/data/%ff", b"/data/%ed%a0%80", b"/read/%c0%ae", b"/everywhere/%ff", b"/version?min_position=%ff"]


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("where", ["/data", "/data/batch", "/write", "/experiments", "/faults"])
def test_an_incomplete_or_malformed_body_is_refused(lab: Lab, name: str, where: str) -> None:
    before = get(f"{lab.primary_url}/version")["position"]
    url = lab.primary_url if where.startswith("/data") else lab.client_url
    status, found = send(url, BODIES[name].replace(b"/data", where.encode(), 1))
    assert (status, found["status"]) == (400, 400)
    assert get(f"{lab.primary_url}/version")["position"] == before


EARLY = [b"Origin: http://evil.example", b"Idempotency-Key: a b", b"Sec-Fetch-Site: cross-site"]


@pytest.mark.parametrize("header", EARLY)
def test_a_refusal_reaches_a_client_that_is_still_sending(lab: Lab, header: bytes) -> None:
    for url in (lab.primary_url, *lab.replica_urls.values()):
        raw = request(b"POST", b"/data/batch", header, b"Content-Length: 12000000", body=b" " * 12_000_000)
        assert send(url, raw)[0] in {400, 403, 405}


@pytest.mark.parametrize("name", HEADS)
def test_every_node_refuses_a_malformed_head(lab: Lab, name: str) -> None:
    for url in [*node_urls(lab), lab.client_url, lab.worker_url]:
        status, found = send(url, HEADS[name])
        assert 400 <= status < 500, (url, found)
        assert found["status"] == status
        assert ask("GET", f"{url}/health")[0] == 200


@pytest.mark.parametrize("path", NOT_UTF_8)
def test_a_path_that_is_not_utf_8_is_not_decoded_to_another_key(lab: Lab, path: bytes) -> None:
    post(f"{lab.primary_url}/data", {"key": "\N{REPLACEMENT CHARACTER}", "value": 1})
    for url in [*node_urls(lab), lab.client_url]:
        status, found = send(url, request(b"GET", path))
        assert status in {400, 404}, found
    for method in (b"GET", b"DELETE"):
        assert send(lab.primary_url, request(method, b"/data/%ff"))[0] == 400
    assert get(f"{lab.primary_url}/data/%EF%BF%BD")["value"] == 1


SURROGATES = [
    ("/delays", {"replica": "\ud800", "delay_ms": 5}),
    ("/faults", {"replica": "lab14-replica1", "fault": "\ud800"}),
    ("/faults", {"replica": "lab14-replica1", "fault": "pause", "\ud800": 1}),
    ("/resync", {"replica": "\ud800"}),
    ("/experiments", {"kind": "\ud800"}),
]


@pytest.mark.parametrize(("where", "body"), SURROGATES)
def test_a_text_with_a_lone_surrogate_is_refused(lab: Lab, where: str, body: dict[str, Any]) -> None:
    assert ask("POST", lab.client_url + where, body)[0] in {400, 422}
