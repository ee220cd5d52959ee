"""What ``lab up --redis-url`` reports for a URL without a usable log: one sentence, soon, and no password."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from lab.errors import LabError
from lab.local.existing import require_usable
from lab.local.layout import free_port
from tests.support.cluster import ClusterServers
from tests.support.logserver import Server
from tests.support.sentinel import PASSWORD, SentinelServers
from tests.support.until import until

pytestmark = pytest.mark.xdist_group("wrong URLs")
WRONG = "wr0ng"


def reported(url: str) -> str:
    began = time.monotonic()
    with pytest.raises(LabError) as raised:
        require_usable(url, ["lab14-replica1"], Event())
    assert time.monotonic() - began < 3
    message = str(raised.value)
    assert message.startswith("--redis-url")
    assert "\n" not in message
    assert not {PASSWORD, WRONG} & set(re.split(r"[^\w-]+", message)), message
    return message


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelServers]:
    with SentinelServers.running("valkey", tmp_path_factory.mktemp("sentinel")) as started:
        yield started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    with ClusterServers.running("valkey", tmp_path_factory.mktemp("cluster"), replicas_each=0) as started:
        yield started


def test_right_urls_are_accepted(watched: SentinelServers, cluster: ClusterServers) -> None:
    master = f"redis://default:{PASSWORD}@127.0.0.1:{watched.master().port}/0"
    for url in (watched.url(), cluster.url(), master):
        require_usable(url, ["lab14-replica1"], Event())


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (f"default:{PASSWORD}", f"default:{WRONG}", "refused the user or its password"),
        (f"_password={PASSWORD}", f"_password={WRONG}", "the Sentinels refused the password; theirs is sentinel_pass"),
        (f"?sentinel_password={PASSWORD}", "", "the Sentinels refused the password"),
        ("/lab14/0", "/other", "the Sentinels know no master named 'other'"),
        ("/lab14/0", "", "the master's name is missing"),
        ("sentinel_password", "sentinel_pasword", "the option 'sentinel_pasword' is not allowed"),
        ("redis+", "rediss+", "does not use TLS; use redis instead of rediss"),
        (f"default:{PASSWORD}", f"default:a/{WRONG}", "must be percent-encoded"),
        (f"default:{PASSWORD}", f"default:a?{WRONG}", "must be percent-encoded"),
        (f"default:{PASSWORD}", f"default:12#{WRONG}", "must be percent-encoded"),
    ],
)
def test_a_wrong_part_of_a_url_of_sentinels_is_named(
    watched: SentinelServers, before: str, after: str, message: str
) -> None:
    url = watched.url()
    assert before in url
    assert message in reported(url.replace(before, after))


def test_sentinels_that_cannot_be_reached(watched: SentinelServers) -> None:
    dead = watched.url().split("@")[0] + f"@127.0.0.1:{free_port()}/lab14"
    assert "no Sentinel answers: 127.0.0.1" in reported(dead)
    for sentinel in watched.sentinels:
        sentinel.stop()
    try:
        assert "no Sentinel answers: 127.0.0.1" in reported(watched.url())
    finally:
        for sentinel in watched.sentinels:
            sentinel.cont()


def test_another_server_than_the_master(watched: SentinelServers, cluster: ClusterServers) -> None:
    def single(server: Server, db: int = 0) -> str:
        return f"redis://default:{PASSWORD}@127.0.0.1:{server.port}/{db}"

    assert "it is a replica of another server" in reported(single(watched.replicas()[0]))
    for db in (0, 1):
        assert "it is a Sentinel; use redis+sentinel://" in reported(single(watched.sentinels[0], db))
    assert "a node of a cluster; use redis+cluster://" in reported(single(cluster.servers[0]))
    master = watched.master().port
    as_sentinel = f"redis+sentinel://default:{PASSWORD}@127.0.0.1:{master}/lab14?sentinel_password={PASSWORD}"
    assert "it names a log server where a Sentinel is expected" in reported(as_sentinel)
    assert "cluster support disabled" in reported(f"redis+cluster://default:{PASSWORD}@127.0.0.1:{master}")


def test_a_frozen_server(watched: SentinelServers) -> None:
    frozen = watched.replicas()[0]
    frozen.stop()
    try:
        assert "Timeout" in reported(f"redis://default:{PASSWORD}@127.0.0.1:{frozen.port}/0")
    finally:
        frozen.cont()


# -- TLS --------------------------------------------------------------------------------------------------------------
def test_tls_to_a_server_without_it(watched: SentinelServers, cluster: ClusterServers) -> None:
    one = f"rediss://default:{PASSWORD}@127.0.0.1:{watched.master().port}/0"
    for url in (one, cluster.url().replace("redis+", "rediss+")):
        assert "the server does not use TLS; use redis instead of rediss" in reported(url)


@pytest.mark.needs("redis-server", "openssl")
@pytest.mark.parametrize("certificate_required", [False, True])
def test_a_server_with_tls(tmp_path: Path, *, certificate_required: bool) -> None:
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    subject = ["-days", "2", "-subj", "/CN=lab", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*new, *subject], check=True, capture_output=True)
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    required = ["--tls-auth-clients", "yes" if certificate_required else "no"]
    command = ["redis-server", "--port", "0", "--tls-port", str(port), *files, *required]
    server = Server([*command, "--dir", str(tmp_path), "--appendonly", "yes"], port, tmp_path / "server.log")
    server.launch()
    own = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    identity = f"&ssl_certfile={certificate}&ssl_keyfile={key}"
    try:
        until(lambda: b"Ready to accept connections" in server.output.read_bytes())
        require_usable(own + identity, ["lab14-replica1"], Event())
        assert "requires TLS; use rediss instead of redis" in reported(f"redis://127.0.0.1:{port}/0")
        assert "CERTIFICATE_VERIFY_FAILED" in reported(f"rediss://127.0.0.1:{port}/0")
        assert "there is no file '/nosuch'" in reported(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs=/nosuch")
        assert "option 'ssl_ca_cert' is not allowed" in reported(own.replace("ca_certs", "ca_cert"))
        if certificate_required:
            assert "it may require a client certificate" in reported(own)
    finally:
        server.kill()
