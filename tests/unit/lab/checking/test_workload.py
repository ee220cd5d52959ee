"""The tokens sent by a session of the checker, with a stub client service."""

import threading
from typing import Any

import pytest

from lab.checking import workload
from lab.checking.history import Plan
from lab.checking.workload import Recorder, Session
from lab.errors import LabError

BEYOND = {"source": "r1", "value": "x", "position": "1-3", "version": 8, "waited_ms": 1.0, "token": "1-8.3f9a1c07"}
WRITTEN = {"position": "1-9", "token": "1-9.3f9a1c07"}
FOREIGN = {"status": 412, "detail": "of another lab"}


class Client:
    """Returns these answers in turn, and records the token of each request."""

    def __init__(self, *answers: tuple[int, dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.tokens: list[str | None] = []
        self.urls: list[str] = []

    def __call__(self, _: str, url: str, *__: Any, headers: Any = None, **___: Any) -> tuple[int, dict[str, Any]]:
        self.urls.append(url)
        self.tokens.append((headers or {}).get("Lab-Position"))
        return self.answers.pop(0)


def tokens(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, *answers: tuple[int, dict[str, Any]], recorder: Recorder | None = None
) -> list[str | None]:
    client = Client(*answers)
    monkeypatch.setattr(workload, "call", client)
    session = Session(1, plan, "http://client", ["k"], recorder or Recorder(lambda: 0))
    for _ in range(len(answers)):
        session.step()
    return client.tokens


def test_a_session_sends_the_token_of_its_last_read_not_the_stores_position(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = tokens(monkeypatch, Plan("session", write_share=0), (200, BEYOND), (404, BEYOND), (200, BEYOND))
    assert sent == [None, "1-8.3f9a1c07", "1-8.3f9a1c07"]


def test_a_write_sends_the_token_and_updates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = tokens(
        monkeypatch, Plan("session", write_share=1), (200, WRITTEN), (200, WRITTEN), (503, {}), (200, WRITTEN)
    )
    assert sent == [None, *["1-9.3f9a1c07"] * 3]


@pytest.mark.parametrize("write_share", [0, 1])
def test_a_refused_token_ends_the_session_and_another_one_follows(
    monkeypatch: pytest.MonkeyPatch, write_share: float
) -> None:
    answer = WRITTEN if write_share else BEYOND
    plan = Plan("session", write_share=write_share)
    recorder = Recorder(lambda: 0)
    sent = tokens(monkeypatch, plan, (200, answer), (412, FOREIGN), (200, answer), recorder=recorder)
    assert sent == [None, answer["token"], None]
    assert [found.session for found in recorder.operations] == [1, 1, 1 + workload.SESSIONS_APART]


def test_other_levels_send_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tokens(monkeypatch, Plan("eventual", write_share=0), (200, BEYOND), (200, BEYOND)) == [None, None]


def test_a_quorum_writes_to_w_and_reads_from_r_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    for write_share, answer, asked in ((1, {**WRITTEN, "acks_reached": 1}, "acks=3"), (0, BEYOND, "r=2")):
        client, recorder = Client((200, answer)), Recorder(lambda: 0)
        monkeypatch.setattr(workload, "call", client)
        Session(1, Plan("quorum", write_share=write_share, r=2, w=3), "http://client", ["k"], recorder).step()
        assert asked in client.urls[0]
        assert recorder.operations[0].acks == answer.get("acks_reached")


def test_a_quorum_beyond_the_registered_replicas_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client((200, {"replicas": [{"replica_id": "r1", "order": "log"}]}))
    monkeypatch.setattr(workload, "call", client)
    with pytest.raises(LabError, match="r=2 and w=1 need as many replicas; 1 are registered"):
        workload.run(Plan("quorum", r=2, w=1), "http://client", "x", stop=threading.Event(), on_step=lambda _: None)
    assert client.urls == ["http://client/status"]
