"""The documented rights of the lab's user are enough for what happens only after many writes."""

import re
from pathlib import Path
from typing import Any

import pytest
import redis

import broker.log
from broker.connection import connect
from broker.log import ReplicationLog
from broker.position import Position
from tests.conftest import REAL_SERVERS

ROOT = Path(__file__).parents[2]
REMEMBERED = 3


def rights() -> list[str]:
    (line,) = re.findall(
        "^user lab on >LAB-PASSWORD (.*)$", (ROOT / "deploy/hosts/redis.conf").read_text(), re.MULTILINE
    )
    return line.split()


def test_every_command_of_a_script_is_in_the_rights() -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "broker").glob("*.lua"))
    called = re.findall(r"redis\.p?call\('([A-Z]+)'(?:, '(CREATE|SETID|GROUPS|STREAM)')?", scripts)
    assert {f"+{'|'.join(filter(None, words))}".lower() for words in called} <= set(rights())


@pytest.mark.parametrize("which", REAL_SERVERS)
def test_old_write_ids_are_forgotten_with_these_rights(
    servers: Any, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker.log, "REMEMBERED_WRITES", REMEMBERED)
    server = servers(which)
    admin: Any = redis.Redis.from_url(server.url, decode_responses=True)
    admin.flushall()
    admin.execute_command("ACL", "SETUSER", "lab", "on", ">secret", *rights())
    admin.execute_command("ACL", "LOG", "RESET")
    log = ReplicationLog(connect(server.url.replace("redis://", "redis://lab:secret@")))
    log.open("o")
    for number in range(3 * REMEMBERED):
        log.append("set", "k", str(number), f"w{number}")
    assert log.reset("r") == Position(2, 0)
    assert admin.hlen("lab14:writes") == REMEMBERED
    log.group("a").leave()
    assert [one["object"] for one in admin.acl_log()] == []
