"""The contract of the replication log, over the fake and over every real server."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker import snapshot
from broker.connection import connect
from broker.entry import EMPTY, digest
from broker.errors import (
    LogFull,
    LogMissing,
    LogRefused,
    LogUnreachable,
    LogUnverified,
    RecordDamaged,
    WriteIdReused,
)
from broker.log import Appended, Change, ReplicationLog
from broker.position import START, Position
from broker.report import Report
from lab.local.log_server import binary_path
from nodes.http.writing import write_id_of
from tests.conftest import REAL_SERVERS
from tests.support.history import positions, put
from tests.support.logserver import LogServer
from tests.support.until import until


def test_nothing_can_be_appended_before_the_log_is_opened(client: Any) -> None:
    with pytest.raises((LogMissing, LogUnverified)):
        ReplicationLog(client).append("set", "k", "1", "w1")


def test_every_write_id_that_is_accepted_can_be_stored_and_read(log: ReplicationLog) -> None:
    alphabet = [character for character in map(chr, range(0x21, 0x7F)) if character not in '"\\']
    ids = [*alphabet, *(f"a{character}b" for character in alphabet), "".join(alphabet), ',"value":'.replace('"', "'")]
    for write_id in ids:
        key = f"key of {write_id}"
        appended = log.append("set", key, '{"a":",\\"value\\":"}', write_id_of(write_id))
        _, record = log.get(key)
        assert appended is not None
        assert record == (key, '{"a":",\\"value\\":"}', appended.position.version, write_id, appended.at_us)
    assert {record.write_id for record in snapshot.take(log).records} == set(ids)


def test_opening_starts_epoch_1_and_does_nothing_a_second_time(client: Any) -> None:
    log = ReplicationLog(client)
    assert log.open("a") == Position(1, 0)
    put(log, "k")
    assert log.open("b") == Position(1, 1)
    assert log.head().position == Position(1, 1)


def test_a_log_keeps_its_id_as_long_as_it_exists(client: Any) -> None:
    log = ReplicationLog(client)
    with pytest.raises(LogMissing):
        log.history.lab()
    log.open("0123456789")
    assert log.history.lab() == "01234567"
    put(log, "k")
    log.reset("r")
    log.open("another", seen=Position(7, 7))
    log.open("one more")
    assert log.history.lab() == "01234567"
    client.flushall()
    log.open("abcdefghij", seen=Position(8, 0))
    assert log.history.lab() == "abcdefgh"


def test_a_log_without_an_id_must_be_opened_before_appends_and_gets_one(log: ReplicationLog, client: Any) -> None:
    put(log, "k")
    client.hdel("lab14:head", "lab", "replication_id")
    assert not log.is_verified()
    assert log.open("abcdefghij") == Position(1, 1)
    assert (log.history.lab(), log.is_verified()) == ("abcdefgh", True)


def test_a_lost_log_starts_after_the_epoch_that_was_reached(client: Any) -> None:
    log = ReplicationLog(client)
    assert log.open("a", seen=Position(7, 12)) == Position(8, 0)
    assert log.reset("r", seen=Position(11, 3)) == Position(12, 0)


def test_a_log_that_ends_before_the_newest_seen_position_continues_in_a_new_epoch_with_its_content(
    log: ReplicationLog,
) -> None:
    put(log, "a")
    put(log, "b", write_id="b")
    before = log.head()
    assert log.open("o", seen=Position(1, 2)) == Position(1, 2)
    assert log.open("o", seen=Position(1, 5)) == Position(2, 2)
    assert log.head() == before._replace(position=Position(2, 2))
    entry = log.history.newest(1)[0]
    assert (entry.op, entry.position, entry.goes_on_from) == ("epoch", Position(2, 2), Position(1, 2))
    assert positions(log.history.newest(10)) == ["1-0", "1-1", "1-2", "2-2"]
    assert put(log, "c") == Position(2, 3)
    assert snapshot.take(log).position == Position(2, 3)
    assert {record.key for record in log.page("", 10, 10**6).records} == {"a", "b", "c"}
    again = log.append("set", "b", "1", "b")
    assert again is not None
    assert (again.position, again.repeated) == (Position(1, 2), True)


def test_a_log_in_doubt_continues_in_a_new_epoch(log: ReplicationLog) -> None:
    put(log, "a")
    assert log.open("o", in_doubt=True) == Position(2, 1)
    assert log.open("p", seen=Position(4, 0)) == Position(5, 1)
    assert log.reset("r") == Position(6, 0)
    assert log.history.newest(1)[0].goes_on_from is None


@pytest.mark.parametrize("which", REAL_SERVERS)
def test_a_restarted_server_accepts_no_append_before_it_is_verified(which: str, tmp_path: Path) -> None:
    server = LogServer(binary_path(which), tmp_path)
    server.start()
    try:
        log = ReplicationLog(connect(server.url))
        log.open("o")
        put(log, "a")
        assert log.is_verified()
        # While its disk is busy, a server answers before it has written to its file.
        until(lambda: connect(server.url).info("persistence")["aof_buffer_length"] == 0, 10)
        server.kill()
        server.start()
        assert not log.is_verified()
        with pytest.raises(LogUnverified):
            put(log, "b")
        assert log.head().position == Position(1, 1)
        verified = ReplicationLog(
            connect(server.url), repairs={LogUnverified: lambda: log.open("again", seen=Position(1, 1))}
        )
        assert put(verified, "b") == Position(1, 2)
        assert log.is_verified()
    finally:
        server.kill()


def full(client: Any) -> None:
    client.config_set("maxmemory", 1)


def lacking_replicas(client: Any) -> None:
    client.config_set("min-replicas-to-write", 1)


def unsaved(client: Any) -> None:
    shutil.rmtree(client.config_get("dir")["dir"])
    client.config_set("save", "3600 1")
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")


def foreign_entry(client: Any) -> None:
    client.xadd("lab14:log", {"other": "1"})


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (full, "OOM|maxmemory"),
        (lacking_replicas, "NOREPLICAS|enough good replicas"),
        (unsaved, "MISCONF|unable to persist"),
        (foreign_entry, "foreign entry .* after 1-1; a new epoch starts after it"),
    ],
)
def test_a_check_reports_why_appends_are_refused_and_changes_nothing(
    server: LogServer, trouble: Callable[[Any], None], said: str
) -> None:
    client = connect(server.url)
    log = ReplicationLog(client)
    log.open("open")
    put(log, "k")
    log.check()
    assert client.zrange("lab14:keys", 0, -1) == ["k"]
    trouble(client)
    with pytest.raises(LogRefused):
        put(log, "k")
    with pytest.raises(LogRefused, match=said):
        log.check()
    assert log.head().position == Position(1, 1)


@pytest.mark.parametrize("copies", [0, 1])
def test_a_server_that_became_a_replica_is_not_used(server: LogServer, copies: int) -> None:
    client = connect(server.url)
    log = ReplicationLog(client)
    log.open("open")
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    for use in (partial(log.append, "set", "k", "1", "w", copies=copies), log.head):
        with pytest.raises(LogUnreachable, match="it is a replica of another server"):
            use()
    assert server.client.xlen("lab14:log") == 1


@pytest.mark.parametrize("fields", [{"hello": "world"}, {"op": "set"}, {"op": "x", "key": "k", "value": "1"}])
def test_a_foreign_entry_is_skipped_and_an_epoch_starts_after_it(
    log: ReplicationLog, client: Any, fields: dict[str, str]
) -> None:
    put(log, "a")
    log.group("r1").join(START)
    assert log.history.foreign() is None
    name = client.xadd("lab14:log", fields)
    found = log.history.foreign()
    assert str(found) == name
    assert positions(log.group("r1").read(10, 1)) == ["1-0", "1-1"]
    assert [str(position) for position, _ in log.group("r1").pending(START, 10)] == ["1-0", "1-1"]
    with pytest.raises(LogRefused, match="not written by this lab"):
        log.history.follow(Position(1, 1), 10, 1)
    assert found is not None
    assert log.open("o", seen=found) == Position(found.epoch + 1, 1)
    put(log, "b")
    assert log.history.foreign() is None
    after = positions(log.group("r1").read(10, 1))
    assert after == [f"{found.epoch + 1}-1", f"{found.epoch + 1}-2"]
    assert positions(log.history.newest(10)) == positions(log.history.after(START, 10)) == ["1-0", "1-1", *after]
    assert positions(log.history.follow(Position(1, 1), 10, 1)) == after
    assert len(log.history.groups()) == 1
    log.check()


def test_no_epoch_can_start_after_an_entry_with_the_greatest_id_and_the_check_reports_the_remedy(
    log: ReplicationLog, client: Any
) -> None:
    put(log, "a")
    log.group("r1").join(START)
    client.xadd("lab14:log", {"hello": "world"}, id="18446744073709551615-1")
    log.group("r1").read(10, 1)
    assert log.history.foreign() is None
    assert positions(log.history.newest(10)) == ["1-0", "1-1"]
    assert len(log.history.groups()) == 1
    with pytest.raises(LogRefused, match="after 1-1; run DEL lab14:log to accept writes again"):
        log.check()
    client.delete("lab14:log")
    log.check()
    assert put(log, "b") == Position(1, 2)
    log.group("r1").join(Position(1, 1))
    assert positions(log.group("r1").read(10, 1)) == ["1-2"]


def test_versions_count_up_without_gaps_and_are_the_stream_ids(log: ReplicationLog, client: Any) -> None:
    assert [put(log, key) for key in "abc"] == [Position(1, 1), Position(1, 2), Position(1, 3)]
    assert [name for name, _ in client.xrange("lab14:log")] == ["1-0", "1-1", "1-2", "1-3"]


def test_an_entry_is_readable_in_redis_cli(log: ReplicationLog, client: Any) -> None:
    log.append("set", "k", '{"a":"ü"}', "w1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    (_, fields) = client.xrange("lab14:log", "1-1")[0]
    assert list(fields) == ["op", "key", "value", "write_id", "at", "traceparent"]
    assert (fields["op"], fields["key"], fields["value"], fields["write_id"]) == ("set", "k", '{"a":"ü"}', "w1")


def test_a_retry_with_the_same_write_id_is_the_same_write(log: ReplicationLog) -> None:
    first = log.append("set", "k", "1", "w1")
    again = log.append("set", "k", "1", "w1")
    assert first is not None
    assert again == first._replace(repeated=True)
    assert log.head().position == Position(1, 1)


def test_many_changes_are_appended_one_after_another_each_with_its_own_outcome(log: ReplicationLog) -> None:
    put(log, "k", write_id="known")
    changes = [
        Change("set", "a", "1", "w1"),
        Change("delete", "missing", "", "w2"),
        Change("set", "k", "1", "known"),
        Change("set", "k", "2", "known"),
        Change("delete", "a", "", "w3"),
    ]
    first, missing, repeated, reused, last = log.append_many(changes)
    assert isinstance(first, Appended)
    assert isinstance(repeated, Appended)
    assert isinstance(last, Appended)
    assert (first.position, first.repeated) == (Position(1, 2), False)
    assert missing is None
    assert (repeated.position, repeated.repeated) == (Position(1, 1), True)
    assert isinstance(reused, WriteIdReused)
    assert last.position == Position(1, 3)
    again = log.append_many(changes)
    assert [found.position for found in again if isinstance(found, Appended)] == [(1, 2), (1, 1), (1, 3)]
    assert log.head().position == Position(1, 3)


def test_a_write_id_of_another_change_is_refused_and_changes_nothing(log: ReplicationLog) -> None:
    log.append("set", "k", "1", "w1")
    with pytest.raises(WriteIdReused):
        log.append("set", "k", "2", "w1")
    head, record = log.get("k")
    assert head.position == Position(1, 1)
    assert record is not None
    assert record.value == "1"


def test_write_ids_are_remembered_up_to_a_bound(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.log.REMEMBERED_WRITES", 3)
    log = ReplicationLog(client)
    log.open("open")
    for number in range(10):
        put(log, "k", str(number))
    assert client.hlen("lab14:writes") == client.llen("lab14:write_order") == 3


def allowed(server: LogServer, *rules: str) -> ReplicationLog:
    """Return the log for a user without some commands."""
    connect(server.url).execute_command("ACL", "SETUSER", "lab", "reset", "on", ">pw", "~*", "+@all", *rules)
    return ReplicationLog(connect(server.url.replace("//", "//lab:pw@")))


def test_a_user_that_cannot_publish_acknowledges_nothing(server: LogServer) -> None:
    log = ReplicationLog(connect(server.url))
    log.open("open")
    log.group("r1").join(START)
    positions = [entry.position for entry in log.group("r1").read(10, 1)]
    with pytest.raises(LogRefused, match="channel"):
        allowed(server).group("r1").acknowledge(positions, Report("r1", 1, 0, positions))
    assert log.history.groups()[0].pending == len(positions)


@pytest.mark.parametrize("command", ["lpop", "zadd", "unlink"])
def test_a_user_lacking_permission_for_a_script_command_appends_nothing(server: LogServer, command: str) -> None:
    log = allowed(server, f"-{command}", "-xtrim")
    said = rf"not allowed to run (?=.*{command.upper()}).*XTRIM"
    with pytest.raises(LogRefused, match=said):
        log.open("open")
    assert connect(server.url).dbsize() == 0
    ReplicationLog(connect(server.url)).open("open")
    with pytest.raises(LogRefused, match=said):
        put(log, "k")
    assert log.head().position == Position(1, 0)
    assert log.history.length() == 1


def test_a_user_that_can_no_longer_forget_write_ids_appends_nothing(
    server: LogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.log.REMEMBERED_WRITES", 3)
    log = allowed(server)
    log.open("open")
    put(log, "a")
    put(log, "b")
    before = log.head()
    allowed(server, "-lpop")
    with pytest.raises(LogRefused):
        put(log, "c")
    with pytest.raises(LogRefused):
        log.reset("reset")
    assert (log.head(), log.history.length()) == (before, 3)


def test_deleting_a_missing_key_changes_nothing(log: ReplicationLog) -> None:
    assert log.append("delete", "k", "", "w1") is None
    assert log.head().position == Position(1, 0)


def test_a_deleted_key_is_gone_and_the_delete_is_an_entry(log: ReplicationLog) -> None:
    put(log, "k")
    log.append("delete", "k", "", "d")
    assert log.get("k")[1] is None
    assert [entry.op for entry in log.history.newest(2)] == ["set", "delete"]
    assert log.head().keys == 0


def test_a_record_keeps_its_value_unchanged(log: ReplicationLog) -> None:
    text = '{"value":"x","version":9,"a":[1,2.50,"\\"}"]}'
    put(log, 'k"\\,', text)
    record = log.get('k"\\,')[1]
    assert record is not None
    assert (record.value, record.version) == (text, 1)


@pytest.mark.parametrize(
    ("sound", "rotten"), [('"value":1}', '"value":2}'), ('"version":1', '"version":x'), ('"write_id"', '"write\x00id"')]
)
def test_a_record_that_does_not_match_its_own_digest_is_not_served(
    log: ReplicationLog, client: Any, sound: str, rotten: str
) -> None:
    put(log, "a")
    put(log, "b")
    record = client.hget("lab14:data", "a")
    client.hset("lab14:data", "a", record.replace(sound, rotten))
    for read in (lambda: log.get("a"), lambda: log.page("", 10, 10**6), lambda: snapshot.take(log)):
        with pytest.raises(RecordDamaged, match="primary's record of 'a' is damaged; write it again or delete it"):
            read()
    assert log.get("b")[1] is not None


def test_a_damaged_record_can_be_written_again_and_deleted(log: ReplicationLog, client: Any) -> None:
    put(log, "a")
    put(log, "b")
    for key in "ab":
        client.hset("lab14:data", key, client.hget("lab14:data", key).replace('"value":1', '"value":2'))
    put(log, "a")
    log.append("delete", "b", "", "delete")
    records = log.page("", 10, 10**6).records
    assert [record.key for record in records] == ["a"]
    assert digest((r.write_id, r.key, r.value) for r in records) == (1, log.head().digest)


def test_the_digest_of_the_script_is_that_of_the_content(log: ReplicationLog) -> None:
    for number in range(60):
        put(log, f"k{number % 17}", str(number))
    log.append("delete", "k3", "", "d")
    held = snapshot.take(log).records
    assert digest((r.write_id, r.key, r.value) for r in held) == (16, log.head().digest)


def test_a_store_that_is_empty_again_has_the_empty_digest(log: ReplicationLog) -> None:
    put(log, "k")
    assert log.head().digest != EMPTY
    log.append("delete", "k", "", "d")
    assert log.head().digest == EMPTY


def test_time_never_goes_back_in_the_log(log: ReplicationLog, client: Any) -> None:
    client.hset("lab14:head", "at", 9_000_000_000_000_000)  # a server clock that was once far ahead
    put(log, "k")
    assert log.history.newest(1)[0].at_us == 9_000_000_000_000_000


HOUR_US = 3_600_000_000


def test_the_logs_time_continues_if_the_servers_clock_is_set_back(log: ReplicationLog, client: Any) -> None:
    assert log.steady(None) == log.steady(log.history.now_us()) == 0
    put(log, "a")
    before_us = log.history.now_us() + HOUR_US  # as if the server's clock had been an hour ahead up to now
    client.hset("lab14:head", "at", before_us)
    assert log.history.now_us() == before_us
    assert log.steady(before_us + 1_000_000) >= HOUR_US
    assert log.history.now_us() >= before_us + 1_000_000
    put(log, "b")
    put(log, "c")
    second, third = log.history.newest(2)
    assert before_us + 1_000_000 <= second.at_us < third.at_us <= log.history.now_us()
    assert log.history.before(HOUR_US // 2) == (Position(1, 1), Position(1, 3))
    assert log.steady(log.history.now_us()) == 0
    log.reset("r")
    assert log.history.newest(1)[0].at_us > third.at_us


def test_a_corrected_clock_needs_no_offset(log: ReplicationLog, client: Any) -> None:
    client.hset("lab14:head", "offset", HOUR_US)
    known_us = log.history.now_us() - HOUR_US
    assert log.steady(None) == 0
    assert log.steady(known_us) <= -HOUR_US + 1_000_000
    assert log.history.now_us() < known_us + 60_000_000
    client.hset("lab14:head", "offset", 0)
    assert log.steady(known_us - HOUR_US) == 0, "a clock that is ahead is followed"


def test_pages_contain_every_key_once_in_byte_order(log: ReplicationLog) -> None:
    keys = ["b", "a", "ü", "Z", "a/b", "a b", "zz", "\x00"]
    for key in keys:
        put(log, key)
    seen: list[str] = []
    more = True
    while more:
        page = log.page(seen[-1] if seen else "", 3, 1000)
        seen += [record.key for record in page.records]
        more = page.more
    assert seen == sorted(keys, key=str.encode)


def test_a_page_ends_once_it_exceeds_its_bytes(log: ReplicationLog) -> None:
    for key in "abcd":
        put(log, key, '"' + "x" * 100 + '"')
    page = log.page("", 10, 350)
    assert [record.key for record in page.records] == ["a", "b"]
    assert page.more


def test_a_reset_starts_an_epoch_with_an_empty_store_and_drops_the_old_entries(log: ReplicationLog) -> None:
    put(log, "k")
    assert log.reset("r") == Position(2, 0)
    assert positions(log.history.newest(10)) == ["2-0"]
    head = log.head()
    assert (head.position, head.keys, head.digest) == (Position(2, 0), 0, EMPTY)
    assert put(log, "k") == Position(2, 1)


def test_a_retried_reset_is_one_reset(log: ReplicationLog) -> None:
    assert log.reset("r") == log.reset("r") == Position(2, 0)


def test_a_retried_write_from_before_a_reset_is_not_written_again(log: ReplicationLog) -> None:
    put(log, "k", write_id="w")
    log.reset("r")
    assert put(log, "k", write_id="w") == Position(1, 1)
    assert log.head().position == Position(2, 0)


def test_trimming_is_by_position(log: ReplicationLog) -> None:
    for key in "abc":
        put(log, key)
    assert log.trim(Position(1, 1)) == 2
    assert positions(log.history.newest(10)) == ["1-2", "1-3"]
    assert log.history.length() == 2


HEAVY = '"' + "x" * 200 * 1024 + '"'


def test_the_log_is_shrunk_to_a_bound_in_bytes(server: LogServer) -> None:
    log = ReplicationLog(connect(server.url))
    log.open("open")
    for number in range(100):
        put(log, "k", HEAVY[: 2000 * (1 + number % 9)] + '"')
    log.shrink(lambda memory: memory.log_bytes)
    assert log.history.length() == 101
    log.shrink(lambda _: 400_000)
    left = log.history.memory()
    assert left is not None
    assert 330_000 < left.log_bytes <= 400_000
    assert log.history.newest(1)[0].position == Position(1, 100)
    log.shrink(lambda _: 0)
    assert log.history.length() == 0
    assert put(log, "k") == Position(1, 101)


def test_on_a_full_log_server_old_entries_make_room_and_deletes_and_resets_succeed(server: LogServer) -> None:
    client = connect(server.url)
    log = ReplicationLog(client)
    log.open("open")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 2**23)

    def taken(log: ReplicationLog, *keys: str) -> int:
        for count, key in enumerate(keys):
            try:
                put(log, key, HEAVY)
            except LogFull:
                return count
        return len(keys)

    assert taken(log, *["k"] * 100) < 45
    shrunk = ReplicationLog(client, repairs={LogFull: lambda: log.shrink(lambda memory: memory.log_bytes // 2)})
    assert taken(shrunk, *["k"] * 100) == 100
    assert taken(shrunk, *map(str, range(100))) < 45
    assert log.append("delete", "k", "", "delete") is not None
    taken(log, *map(str, range(100)))
    head = log.head()
    with pytest.raises(LogFull):
        put(log, "k", HEAVY)
    assert log.head() == head
    assert log.reset("reset") == Position(2, 0)
    put(log, "k", HEAVY)


def test_each_namespace_is_a_separate_lab(client: Any) -> None:
    one, two = ReplicationLog(client, "one"), ReplicationLog(client, "two")
    one.open("o")
    two.open("o")
    put(one, "k")
    assert two.head().position == Position(1, 0)
