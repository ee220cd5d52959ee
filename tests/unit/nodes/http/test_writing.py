"""The idempotency key of a write."""

import pytest

from nodes.http.writing import write_id_of


@pytest.mark.parametrize(
    ("given", "taken"),
    [("abc", "abc"), ('"abc"', "abc"), ("a" * 128, "a" * 128), ("2026-11/23_x:~!", "2026-11/23_x:~!")],
)
def test_an_idempotency_key_becomes_the_write_id(given: str, taken: str) -> None:
    assert write_id_of(given) == taken


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", 'a"b', "a\\b", "ü", "a\n"[:2] + "b"])
def test_an_unusable_idempotency_key_is_refused(given: str) -> None:
    from nodes.http.problem import Problem

    with pytest.raises(Problem):
        write_id_of(given)


def test_new_write_ids_differ() -> None:
    assert len({write_id_of(None) for _ in range(100)}) == 100
