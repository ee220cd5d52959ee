"""The digest of entries: the script's running sum and the sum over the content are the same."""

from hypothesis import given, settings
from hypothesis import strategies as st

from broker import snapshot
from broker.entry import EMPTY, digest
from broker.log import ReplicationLog
from tests.support.fake import fake_client

keys = st.sampled_from(["a", "b", "ü", '"', "a:b", ""]).filter(bool)
changes = st.lists(
    st.tuples(st.sampled_from(["set", "delete"]), keys, st.sampled_from(["1", '"x"', "[]"])), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(changes)
def test_the_running_digest_is_that_of_the_content(script: list[tuple[str, str, str]]) -> None:
    log = ReplicationLog(fake_client())
    log.open("o")
    for number, (op, key, value) in enumerate(script):
        log.append("set" if op == "set" else "delete", key, value if op == "set" else "", f"w{number}")
    held = snapshot.take(log).records
    assert digest((record.write_id, record.key, record.value) for record in held) == (
        log.head().keys,
        log.head().digest,
    )


def test_the_digest_depends_on_content_and_not_on_order() -> None:
    items = [("w1", "a", "1"), ("w2", "b", "2")]
    assert digest(items) == digest(reversed(items))
    assert digest(items) != digest([("w1", "a", "1"), ("w2", "b", "3")])
    assert digest(items) != digest([("w1", "a", "1"), ("w3", "b", "2")])
    assert digest([("w", "ab", "c")]) != digest([("w", "a", "bc")])
    assert digest([]) == (0, EMPTY)
