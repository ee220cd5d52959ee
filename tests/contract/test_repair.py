"""Repairing the file of every real log server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.connection import connect
from broker.log import ReplicationLog
from broker.position import Position
from lab.local.log_server import DAMAGED, DROPPED, binary_path, repair
from tests.conftest import REAL_SERVERS
from tests.support.logserver import LogServer


class Damaged:
    """A log server that has ended, with 20 entries in its file."""

    def __init__(self, which: str, directory: Path) -> None:
        self.directory = directory
        self.binary = binary_path(which)
        self.server = LogServer(self.binary, directory)
        self.server.start()
        self.log = ReplicationLog(connect(self.server.url))
        connect(self.server.url).config_set("appendfsync", "always")
        self.log.open("open")
        for number in range(20):
            self.log.append("set", f"k{number}", str(number), f"w{number}")
        self.server.kill()
        (self.file,) = directory.glob("appendonlydir/*.incr.aof")
        self.sound = self.file.read_bytes()

    def repair(self) -> str | None:
        return repair(self.binary, self.directory)


@pytest.fixture(params=REAL_SERVERS)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Damaged]:
    found = Damaged(request.param, tmp_path)
    yield found
    found.server.kill()


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda sound: sound + b"\0rotten\xff", 20),
        (lambda sound: sound[:-100] + bytes(100), 19),
        (lambda sound: sound[: len(sound) // 2] + bytes(9) + sound[len(sound) // 2 :], 9),
    ],
)
def test_everything_after_the_first_damage_is_dropped_from_the_log_and_saved(
    damaged: Damaged, damage: Callable[[bytes], bytes], left: int
) -> None:
    damaged.file.write_bytes(rotten := damage(damaged.sound))
    said = damaged.repair()
    dropped = (damaged.directory / DROPPED).read_bytes()
    assert f"its last {len(dropped)} bytes were dropped" in str(said)
    assert rotten.endswith(dropped)
    assert damaged.repair() is None, "it is sound now"
    damaged.server.start()
    head = damaged.log.head().position
    assert left - 2 <= head.version <= left
    assert damaged.log.history.was_cut()
    assert damaged.log.open("again", head, in_doubt=True) == Position(2, head.version)
    assert not damaged.log.history.was_cut()
    assert damaged.log.append("set", "k", "1", "w") is not None


def test_an_intact_or_missing_file_is_left_alone(damaged: Damaged, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert damaged.repair() is None
    assert damaged.file.read_bytes() == damaged.sound
    assert repair(damaged.binary, tmp_path_factory.mktemp("empty")) is None


def test_a_server_reports_in_its_last_line_that_its_file_is_damaged(damaged: Damaged) -> None:
    damaged.file.write_bytes(damaged.sound + b"rotten")
    with pytest.raises(AssertionError):
        damaged.server.start(0.5)
    words = (damaged.directory / "server.log").read_text().strip().splitlines()[-1]
    assert DAMAGED in words
