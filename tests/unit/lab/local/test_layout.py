"""Names, ports and delays of a local lab."""

import socket
from random import Random
from urllib.parse import urlsplit

import pytest

from lab.errors import LabError
from lab.local import layout
from lab.local.layout import Options


def test_the_client_keeps_its_port_whatever_the_number_of_replicas() -> None:
    for replicas in (1, 2, 3, 20):
        places = layout.places(Options(base_port=9000, replicas=replicas))
        ports = {place.node_id: place.port for place in places}
        assert (ports["lab14-primary"], ports["lab14-client"], ports["lab14-worker"]) == (9000, 9003, 9078)
        assert len(set(ports.values())) == replicas + 3
        for ha in (False, True):
            servers = {place.port for place in layout.log_places(Options(base_port=9000, ha=ha))}
            assert len(servers) == (6 if ha else 1)
            assert not servers & set(ports.values())


def test_the_first_two_replicas_are_late_by_500_and_1500_ms() -> None:
    delays = [place.delay_ms for place in layout.places(Options(replicas=4)) if place.role == "replica"]
    assert delays == [500, 1500, 1000, 1000]


def test_the_url_of_the_log_server_names_its_user() -> None:
    """Otherwise redis-cli 7 sends an empty user name, which the server rejects."""
    assert urlsplit(layout.redis_url(Options(), "secret")).username == "default"


def test_the_url_of_a_log_with_sentinels_names_all_of_them_and_the_password_of_each() -> None:
    url = (
        "redis+sentinel://default:secret@127.0.0.1:9075,127.0.0.1:9074,127.0.0.1:9073/lab14/0?sentinel_password=secret"
    )
    assert layout.redis_url(Options(base_port=9000, ha=True), "secret") == url


def test_a_port_of_a_sentinel_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=rf"\b{port}\b.* in use"):
            layout.require_free_ports(Options(base_port=port - 73, ha=True))


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=rf"\b{port}\b.* in use"):
            layout.require_free_ports(Options(base_port=port - 1))


def test_a_free_block_is_found_and_the_preferred_one_is_taken_if_free() -> None:
    bases = {layout.free_base_port(Random(seed)) for seed in range(50)}
    assert max(bases) + layout.BLOCK < 32_768, "where the system takes the ports of outgoing connections from"
    base = layout.free_base_port(Random(1))
    assert layout.free_base_port(Random(2), preferred=[base]) == base
    with socket.create_server(("127.0.0.1", base + 2)):
        assert layout.free_base_port(Random(2), preferred=[base]) != base
