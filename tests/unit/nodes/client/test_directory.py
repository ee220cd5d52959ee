"""The directory: the primary's report, remembered while the primary is away."""

import pytest

from nodes.client.directory import Directory
from nodes.http.peers import PeerError
from tests.support.peers import GONE, LAB, PRIMARY, StubPeers, replicas


def test_a_replica_that_registers_a_moment_later_is_known_at_once() -> None:
    peers = StubPeers(**{"primary/replicas": [replicas(), replicas("r1"), replicas("r1", "r2")]})
    directory = Directory(peers, PRIMARY)
    assert directory.replicas() == {}
    assert list(directory.replicas()) == ["r1"]
    assert list(directory.replicas()) == ["r1"], "remembered from then on"
    assert list(directory.now()) == ["r1", "r2"], "what measures misses none"


def test_the_id_of_a_lab_is_known_after_the_first_answer() -> None:
    peers = StubPeers(**{"primary/replicas": [GONE, GONE, replicas("r1"), GONE]})
    directory = Directory(peers, PRIMARY)
    with pytest.raises(PeerError, match="not reported its lab's id yet"):
        directory.lab()
    directory.now()
    assert directory.lab() == LAB
    directory.now()
    assert directory.lab() == LAB


def test_replicas_are_remembered_while_the_primary_is_away() -> None:
    peers = StubPeers(**{"primary/replicas": [replicas("r1"), GONE, replicas("r1", "r3")]})
    directory = Directory(peers, PRIMARY)
    assert [list(directory.now()) for _ in range(3)] == [["r1"], ["r1"], ["r1", "r3"]]


def test_a_read_never_asks_for_the_replicas_once_some_are_known() -> None:
    peers = StubPeers(**{"primary/replicas": [replicas("r1"), replicas("r1", "r3")]})
    directory = Directory(peers, PRIMARY)
    for _ in range(5):
        assert list(directory.replicas()) == ["r1"]
    assert len(peers.asked) == 1
    directory.now()  # the lookout's question
    assert list(directory.replicas()) == ["r1", "r3"]
    assert len(peers.asked) == 2
