"""URLs of the log, and the search for the server that takes writes now."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.connection import parse_url

from broker import address
from broker.address import Cluster, NotLocated, Sentinels, Server, parse, without_password


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://h", "it must start with redis://"),
        ("valkey://h", "it must start with redis://"),
        ("redis+other://h", "it must start with redis://"),
        ("unix+sentinel://h/x", "it must start with redis://"),
        ("redis:h", "it must start with redis://"),
        ("redis://a,b", "several hosts"),
        ("redis://h:port", "'h:port' in it is not a host or host:port"),
        ("redis://h:0", "'h:0'"),
        ("redis://h:65536", "'h:65536'"),
        ("redis+sentinel://a,,b/m", "'' in it is not a host"),
        ("redis+sentinel://a;b/m", "'a;b'"),
        ("redis+sentinel://a,b", "the master's name is missing"),
        ("redis+sentinel://a/m/x", "its database 'x' is not a number"),
        ("redis+sentinel://a/m/1/2", "its database '1/2'"),
        ("redis+cluster://a/1", "a cluster has only database 0"),
        ("redis+cluster://a?sentinel_password=x", "the option 'sentinel_password' is not allowed"),
        ("redis+sentinel://a/m?ssl_ca_certs=x", "the option 'ssl_ca_certs' is not allowed"),
        ("rediss+sentinel://a/m?protocol=3", "the option 'protocol' is not allowed"),
    ],
)
def test_a_wrong_url_is_refused_with_the_part_that_is_wrong(url: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        parse(url)
    assert named in str(refused.value)


def test_a_url_of_sentinels_has_the_servers_login_and_that_of_the_sentinels() -> None:
    found = parse("rediss+sentinel://u:p%40w@a,b:7,[::1]:8/my%20master/3?sentinel_password=s%26t&ssl_ca_certs=/ca.crt")
    assert isinstance(found, Sentinels)
    assert (found.name, found.known) == ("my master", [Server("a", 26379), Server("b", 7), Server("::1", 8)])
    log = parse_url(found.at(Server("m", 6379)))
    assert {name: log[name] for name in ("username", "password", "host", "db", "ssl_ca_certs")} == {
        "username": "u",
        "password": "p@w",
        "host": "m",
        "db": 3,
        "ssl_ca_certs": "/ca.crt",
    }
    sentinel = parse_url(found.url_of(Server("::1", 8)))
    assert (sentinel["password"], sentinel["host"], sentinel["ssl_ca_certs"]) == ("s&t", "::1", "/ca.crt")
    assert "username" not in sentinel or not sentinel["username"]


def test_the_keys_of_a_lab_share_a_slot_of_a_cluster_only() -> None:
    assert parse("redis+cluster://a").namespace("lab14") == "{lab14}"
    assert parse("redis+cluster://a").namespace("{lab14}") == "{lab14}"
    assert parse("redis://a").namespace("lab14") == "lab14"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:secret@h:1/0", "redis://h:1/0"),
        ("redis://h", "redis://h"),
        (
            "redis+sentinel://:secret@a,b/m?sentinel_username=x&sentinel_password=secret&db=1",
            "redis+sentinel://a,b/m?sentinel_username=x&sentinel_password=&db=1",
        ),
        ("redis://u:a/b@secret@h:1/0", "redis://h:1/0"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert without_password(url) == shown


@contextmanager
def answering(reply: Callable[[list[bytes]], bytes | None]) -> Iterator[str]:
    """A server with one answer to each command; with ``None`` it never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with closing(connection), connection.makefile("rb") as sent:
                while head := sent.readline():
                    words = []
                    for _ in range(int(head[1:])):
                        length = int(sent.readline()[1:])
                        words.append(sent.read(length + 2)[:-2])
                    answer = reply(words)
                    if answer is not None:
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.close()


def flat(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one.encode()) for one in words)


def sentinel(ip: str, epoch: int, known: str = "m") -> Callable[[list[bytes]], bytes]:
    def reply(words: list[bytes]) -> bytes:
        if words[:2] != [b"SENTINEL", b"MASTER"]:
            return b"+OK\r\n"
        if words[2].decode() != known:
            return b"-ERR No such master with that name\r\n"
        return flat("name", known, "ip", ip, "port", "6379", "flags", "master", "config-epoch", str(epoch))

    return reply


def test_the_newest_configuration_of_all_sentinels_counts() -> None:
    with answering(sentinel("old", 1)) as first, answering(sentinel("new", 2)) as second:
        assert parse(f"redis+sentinel://{first},{second}/m").locate() == Server("new", 6379)
        assert parse(f"redis+sentinel://127.0.0.1:1,{first}/m").locate() == Server("old", 6379)


def test_an_older_configuration_is_never_returned_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_FRESH_SECONDS", -1.0)
    epochs = [2]

    def reply(words: list[bytes]) -> bytes:
        return sentinel("m", epochs[0])(words)

    with answering(reply) as only:
        found = parse(f"redis+sentinel://{only}/m")
        assert found.locate() == Server("m", 6379)
        epochs[0] = 1
        with pytest.raises(NotLocated, match="only Sentinels answer that missed the last failover"):
            found.locate()


@pytest.mark.parametrize("silent", [None, b"-NOAUTH Authentication required.\r\n"])
def test_a_sentinel_that_does_not_answer_delays_the_search_by_half_a_second_at_most(silent: Any) -> None:
    with answering(lambda _: silent) as first, answering(sentinel("here", 1)) as second:
        assert parse(f"redis+sentinel://{first},{second}/m").locate() == Server("here", 6379)


def test_an_unknown_master_is_named_and_missing_sentinels_too() -> None:
    unknown = pytest.raises(NotLocated, match="the Sentinels know no master named 'other'")
    with answering(sentinel("here", 1)) as only, unknown:
        parse(f"redis+sentinel://{only}/other").locate()
    with pytest.raises(NotLocated, match=r"no Sentinel answers: 127\.0\.0\.1:1: "):
        parse("redis+sentinel://127.0.0.1:1/m").locate()


def slots(*ranges: tuple[int, int, str]) -> bytes:
    rows = b"".join(
        b"*3\r\n:%d\r\n:%d\r\n*3\r\n%b:7000\r\n$2\r\nid\r\n"
        % (low, high, b"$%d\r\n%b\r\n" % (len(host), host.encode()))
        for low, high, host in ranges
    )
    return b"*%d\r\n" % len(ranges) + rows


def test_the_owner_of_the_labs_slot_is_found() -> None:
    half = slots((0, 8191, "low"), (8192, 16383, "high"))
    with answering(lambda words: half if words[0] == b"CLUSTER" else b"+OK\r\n") as node:
        assert isinstance(parse(f"redis+cluster://{node}"), Cluster)
        assert parse(f"redis+cluster://{node}").locate() == Server("low", 7000)
        assert parse(f"redis+cluster://{node}", "b").locate() == Server("low", 7000)
    few = slots((0, 10, "low"))
    unowned = pytest.raises(NotLocated, match="no node of the cluster owns slot 2281")
    with answering(lambda words: few if words[0] == b"CLUSTER" else b"+OK\r\n") as node, unowned:
        parse(f"redis+cluster://{node}").locate()
    assert urlsplit(parse("redis+cluster://u:p@h:1").url).username == "u"
