"""The comparison of all nodes, with answers of stub nodes."""

from typing import Any

import pytest

from nodes.client.comparison import CompareQuery, Comparison
from nodes.client.directory import Directory
from tests.support.peers import CONTRACT_ONLY, GONE, PRIMARY, StubPeers, at, replicas


def make(**answers: Any) -> Comparison:
    peers = StubPeers(**{"primary/replicas": replicas("r1", "r2"), **answers})
    return Comparison(peers, Directory(peers, PRIMARY), PRIMARY)


def test_replicas_are_compared_with_the_primary() -> None:
    comparison = make(**{"primary/version": at(7), "r1/version": at(5), "r2/version": at(7)})
    assert comparison.compare(CompareQuery())["analysis"] == {
        "primary_version": 7,
        "stale_replicas": [{"name": "r1", "version": 5, "behind_by": 2}],
        "consistent_replicas": ["r2"],
        "all_consistent": False,
    }


def test_a_replica_in_an_earlier_epoch_is_behind_at_any_version() -> None:
    comparison = make(**{"primary/version": at(0, epoch=2), "r1/version": at(0, epoch=2), "r2/version": at(9)})
    analysis = comparison.compare(CompareQuery())["analysis"]
    assert analysis["stale_replicas"] == [{"name": "r2", "version": 9, "behind_by": 1}]


def test_without_the_primary_nothing_is_called_consistent() -> None:
    comparison = make(**{"primary/version": GONE, "r1/version": at(7), "r2/version": at(7)})
    found = comparison.compare(CompareQuery())
    assert "error" in found["primary"]
    assert found["analysis"]["all_consistent"] is False
    status = comparison.status()
    assert (status["all_consistent"], status["error"]) == (False, str(GONE))
    assert status["replicas"][0]["version_behind"] is None


@pytest.mark.parametrize(
    ("r1", "r2", "equal", "diverged"),
    [
        (("1-7", "d"), ("1-7", "d"), True, []),
        (("1-7", "d"), ("1-7", "x"), False, ["r2"]),
        (("1-6", "x"), ("1-7", "d"), None, []),  # a digest is meaningless at another position
    ],
)
def test_digests_are_compared_only_at_equal_positions(
    r1: Any, r2: Any, equal: bool | None, diverged: list[str]
) -> None:
    answers = {f"{name}/version": at(7) for name in ("primary", "r1", "r2")}
    for name, (position, digest) in {"primary": ("1-7", "d"), "r1": r1, "r2": r2}.items():
        answers[f"{name}/digest"] = {"position": position, "digest": digest, "keys": 1}
    analysis = make(**answers).compare(CompareQuery(digest=True))["analysis"]
    assert (analysis["digests_equal"], analysis["diverged"]) == (equal, diverged)


def test_the_status_has_the_lag_that_the_log_shows() -> None:
    comparison = make(**{"primary/version": at(7, write_id="w"), "r1/version": at(5), "r2/version": at(7)})
    found = comparison.status()
    assert (found["primary_version"], found["primary_write_id"], found["waiting_for_consistency"]) == (7, "w", False)
    states = [(r["replica_id"], r["version_behind"], r["lag_ms"], r["is_consistent"]) for r in found["replicas"]]
    assert states == [("r1", 2, 33.0, False), ("r2", 0, 0.0, True)]


def test_the_status_splits_pending_entries_by_the_newest_numbers() -> None:
    own = {"acknowledged_position": "1-5", "waiting": 7, "applied_unacknowledged": 2}
    unknown = {**own, "acknowledged_position": None}
    names = ("acknowledged_version", "ack_lag_ms", "pending", "waiting", "applied_unacknowledged")
    for answer, expected in (
        (at(7, **own), (5, 44.0, 9, 7, 2)),
        (at(7, **unknown), (4, 44.0, 3, 2, 1)),
        (GONE, (4, 44.0, 3, 2, 1)),
    ):
        (found, _) = make(**{"primary/version": at(7), "r1/version": answer, "r2/version": at(7)}).status()["replicas"]
        assert tuple(found[name] for name in names) == expected  # type: ignore[literal-required]


def test_a_replica_that_registers_during_a_comparison_is_not_part_of_it() -> None:
    answers = {f"{name}/version": at(7) for name in ("primary", "r1")}
    answers |= {f"{name}/digest": {"position": "1-7", "digest": "d", "keys": 1} for name in ("primary", "r1", "r2")}
    peers = StubPeers(**{"primary/replicas": [replicas("r1"), replicas("r1", "r2")], **answers})
    directory = Directory(peers, PRIMARY)

    class Registering(Directory):
        def replicas(self) -> Any:
            return directory.now()

    found = Comparison(peers, Registering(peers, PRIMARY), PRIMARY).compare(CompareQuery(digest=True))
    assert list(found["replicas"]) == ["r1"]


def test_what_a_replica_does_not_report_is_unknown_and_no_error() -> None:
    comparison = make(**{"primary/version": at(7), "r1/version": CONTRACT_ONLY, "r2/version": at(7)})
    compared = comparison.compare(CompareQuery())
    assert compared["replicas"]["r1"] == CONTRACT_ONLY
    assert compared["analysis"]["consistent_replicas"] == ["r1", "r2"]
    shown = comparison.status()["replicas"][0]
    assert "error" not in shown
    assert (shown["version"], shown["is_consistent"], shown["data_age_ms"]) == (7, True, None)
    assert (shown["acknowledged_version"], shown["pending"]) == (4, 3)  # as the primary reports them
