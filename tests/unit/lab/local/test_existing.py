"""An existing log server: whether a lab can use it."""

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from broker.connection import connect
from broker.delay.models import Fixed
from broker.log import ReplicationLog
from broker.position import START
from broker.registry import Member, Registry, Settings
from lab.errors import LabError
from lab.local import existing, layout
from lab.local.layout import Options
from lab.local.supervisor import Lab
from tests.support.logserver import LogServer
from tests.support.ports import base_port


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path / "lab", base_port=base_port(), replicas=1)


@pytest.mark.parametrize("option", ["protocol=3", "nosuch=1", "decode_responses=no"])
def test_a_forbidden_option_in_the_log_servers_url_is_rejected_at_once(options: Options, option: str) -> None:
    port = layout.free_port()  # nothing listens there, and nothing connects
    with pytest.raises(LabError, match=f"option '{option.partition('=')[0]}' is not allowed"):
        Lab(Options(options.data_dir, options.base_port, redis_url=f"redis://127.0.0.1:{port}/0?{option}")).start()


def test_a_log_server_that_can_lose_entries_is_refused(options: Options, servers: Callable[[str], LogServer]) -> None:
    url = servers("valkey").url
    connect(url).config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(LabError, match="maxmemory-policy is allkeys-lru"):
            Lab(Options(options.data_dir, options.base_port, redis_url=url)).start()
    finally:
        connect(url).config_set("maxmemory-policy", "noeviction")


def beat(url: str, at_us: int) -> None:
    other = Member("lab14-replica1", "http://r1:1", "http://127.0.0.1:1", START, at_us, 0)
    Registry(connect(url)).heartbeat(other, Settings(Fixed(0), Fixed(0)))


def test_a_second_lab_on_one_log_server_is_refused(options: Options, servers: Callable[[str], LogServer]) -> None:
    url = servers("valkey").url
    client = connect(url)
    client.flushall()
    started, ended = Event(), Event()

    def beats() -> None:
        while not ended.wait(0.05):
            beat(url, ReplicationLog(client).history.now_us())
            started.set()

    other = Thread(target=beats, daemon=True)
    other.start()
    try:
        assert started.wait(5)
        with pytest.raises(LabError, match="another lab runs on this log server, with lab14-replica1; use another"):
            Lab(Options(options.data_dir, options.base_port, redis_url=url)).start()
    finally:
        ended.set()
        other.join()
        client.flushall()


def test_a_lab_that_was_just_stopped_does_not_prevent_another_from_starting(
    options: Options, servers: Callable[[str], LogServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(existing, "_HEARTBEAT_SECONDS", 0.2)
    url = servers("valkey").url
    connect(url).flushall()
    beat(url, ReplicationLog(connect(url)).history.now_us())
    existing.require_usable(url, ["lab14-replica1"], Event())
    connect(url).flushall()
