"""Keys from all of Unicode over real HTTP: an accepted key can be read, deleted and exported on every node."""

import json
import sys
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab.client import messages as feed_of
from lab.local.supervisor import Lab
from tests.integration.conftest import node_urls, set_delays
from tests.support.http import ask, get, post

EVERY = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
ALONE = [character for character in EVERY[:0x100] if character != "."] + ["\u2028", "\u202e", "\ufeff", "\uffff"]
PATHS = ["...", "./", "../x", "a/../b", "/..", "%2e%2e", "a\nb", "\r\n", "?x=1", "#", "a;b", "*", "data/k", "\n" * 512]


@pytest.fixture
def quick(fresh: Lab) -> Lab:
    """A lab without delays."""
    set_delays(fresh, 0, 0)
    return fresh


def assert_kept(lab: Lab, key: str, value: Any, position: str) -> None:
    """Assert that each node has the key with this value, and that the client shows it."""
    path = quote(key, safe="")
    for url in node_urls(lab):
        found = get(f"{url}/data/{path}?min_position={position}&timeout_ms=5000")
        assert (found["key"], found["value"]) == (key, value)
    found = get(f"{lab.client_url}/read/{path}?level=strong")
    assert (found["key"], found["value"]) == (key, value)
    nodes = get(f"{lab.client_url}/everywhere/{path}")["nodes"]
    assert [node.get("value") for node in nodes.values()] == [value] * 3


def export(url: str, position: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cursor = ""
    while cursor is not None:
        page = get(f"{url}/data?limit=10000&cursor={cursor}&min_position={position}&timeout_ms=20000")
        found |= page["data"]
        cursor = page["next"]
    return found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(st.characters(exclude_categories=()), max_size=520))
@example(key=".")
@example(key="..")
@example(key="\n")
def test_a_key_is_refused_or_can_be_read_and_deleted_everywhere(quick: Lab, key: str) -> None:
    before = get(f"{quick.primary_url}/version")["position"]
    status, written = ask("POST", f"{quick.client_url}/write", {"key": key, "value": key[:1].isprintable()})
    if status != 200:
        assert (status, [error["field"] for error in written["errors"]]) == (422, ["key"])
        assert get(f"{quick.primary_url}/version")["position"] == before
        return
    assert_kept(quick, key, key[:1].isprintable(), written["position"])
    path = quote(key, safe="")
    deleted = ask("DELETE", f"{quick.primary_url}/data/{path}")[1]["position"]
    for url in node_urls(quick):
        assert ask("GET", f"{url}/data/{path}?min_position={deleted}&timeout_ms=5000")[0] == 404


def test_special_characters_are_valid_keys(quick: Lab) -> None:
    keys = [*ALONE, *PATHS]
    written = post(f"{quick.primary_url}/data/batch", [{"key": key, "value": [key]} for key in keys])
    for key in keys:
        assert_kept(quick, key, [key], written["position"])


def test_every_character_is_exported_in_order_by_every_node(quick: Lab) -> None:
    keys = ["".join(EVERY[start : start + 128]) for start in range(0, len(EVERY), 128)]
    body = "\n".join(json.dumps({"key": key, "value": 1}, ensure_ascii=False) for key in keys)
    position = post(f"{quick.primary_url}/data/batch", body.encode())["position"]
    for url in node_urls(quick):
        assert list(export(url, position)) == sorted(keys, key=str.encode)
    digests = {get(f"{url}/digest")["digest"] for url in node_urls(quick)}
    assert len(digests) == 1


def test_the_feed_reports_keys_of_any_characters(quick: Lab) -> None:
    keys = [*ALONE, *PATHS]
    seen: set[str] = set()
    messages = feed_of(f"{quick.client_url}/events")
    for message in messages:  # the first can arrive before the feed follows the log
        post(f"{quick.primary_url}/data/batch", [{"key": key, "value": 1} for key in keys])
        seen |= {write["key"] for write in message.get("writes", [])}
        if seen >= set(keys):
            break
    messages.close()
