"""Acknowledgements of a write by replicas."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker.delay.models import Fixed
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Member, Registry, Settings
from broker.report import Report, Reports
from nodes.http.problem import problem_of
from nodes.http.writing import AcksQuery
from nodes.primary import acks, app  # noqa: F401 - which maps its exceptions to problems
from nodes.primary.acks import Acknowledgements
from nodes.primary.errors import TooFewReplicas
from nodes.runtime.gate import Places, TooManyWaiters
from tests.support.until import until


class Lab:
    """A primary's acknowledgements, and the groups of two replicas."""

    def __init__(self, fake: Any, waiting_max: int = 10) -> None:
        self.log = ReplicationLog(fake)
        self.log.open("o")
        registered = Registry(fake)
        for name in ("r1", "r2"):
            member = Member(name, f"http://{name}:1", f"http://{name}", Position(1, 0), 0, 0)
            registered.heartbeat(member, Settings(Fixed(0)))
            self.log.group(name).join(START)
        places = Places(waiting_max)
        self.acknowledgements = Acknowledgements(lambda: Reports(fake), self.log.history, registered, places)

    def write(self) -> Any:
        appended = self.log.append("set", "k", "1", f"w{self.log.head().position}")
        assert appended is not None
        return {"version": appended.position.version, "position": str(appended.position)}

    def acknowledge(self, replica: str) -> None:
        group = self.log.group(replica)
        positions = [entry.position for entry in group.read(10, 1)]
        group.acknowledge(positions, Report(replica, 1, 0, positions))

    def wait(self, written: Any, acks: int, timeout_ms: int = 5000) -> Any:
        with self.acknowledgements.required(acks) as replicas:
            query = AcksQuery(acks=acks, timeout_ms=timeout_ms)
            return self.acknowledgements.complete(written, replicas, query)


def test_an_acknowledgement_made_before_the_wait_is_found(fake: Any) -> None:
    lab = Lab(fake)
    written = lab.write()
    lab.acknowledge("r1")
    found = lab.wait(written, acks=1)
    assert (found["acks_reached"], found["acknowledged_by"]) == (1, ["r1"])


def test_a_write_returns_when_enough_replicas_have_reported_its_acknowledgement(fake: Any) -> None:
    lab = Lab(fake)
    written = lab.write()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lab.wait, written, 2)
        until(lambda: bool(lab.acknowledgements._waiting))
        for replica in ("r2", "r1"):
            assert not waiting.done()
            lab.acknowledge(replica)
            lab.acknowledgements.step()
        assert waiting.result(5)["acknowledged_by"] == ["r2", "r1"]
    assert not lab.acknowledgements._waiting


def test_at_the_deadline_the_answer_lists_the_replicas_that_acknowledged(fake: Any) -> None:
    lab = Lab(fake)
    written = lab.write()
    lab.acknowledge("r1")
    assert lab.wait(written, acks=2, timeout_ms=1)["acknowledged_by"] == ["r1"]
    assert not lab.acknowledgements._waiting


def test_a_delivered_entry_is_not_acknowledged(fake: Any) -> None:
    lab = Lab(fake)
    written = lab.write()
    lab.log.group("r1").read(10, 1)
    assert lab.wait(written, acks=1, timeout_ms=1)["acks_reached"] == 0


def test_an_entry_of_an_earlier_epoch_does_not_count_as_acknowledged(fake: Any) -> None:
    lab = Lab(fake)
    written = lab.write()
    lab.log.reset("r")
    lab.acknowledge("r1")
    assert lab.wait(written, acks=1, timeout_ms=1)["acks_reached"] == 0


def test_after_a_lost_subscription_waiting_writes_are_looked_up_in_the_log(fake: Any) -> None:
    lab = Lab(fake)
    written = lab.write()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lab.wait, written, 1)
        until(lambda: bool(lab.acknowledgements._waiting))
        until(lambda: not lab.log.history.acknowledged(Position.parse(written["position"])))
        lab.acknowledge("r2")  # nothing is subscribed yet
        assert not waiting.done()
        lab.acknowledgements.step()
        assert waiting.result(5)["acknowledged_by"] == ["r2"]


def test_too_many_waiting_writes_are_refused_before_anything_is_written(fake: Any) -> None:
    required = Lab(fake, waiting_max=1).acknowledgements.required
    with required(1), pytest.raises(TooManyWaiters), required(1):
        pass


def test_the_newest_report_or_heartbeat_has_the_number_of_unacknowledged_entries(fake: Any) -> None:
    lab = Lab(fake)
    lab.acknowledgements._waiting[Position(9, 9)] = []  # keeps the subscription
    lab.acknowledgements._wanted.set()
    lab.acknowledgements.step()
    for at_us, unacknowledged in ((1, 5), (2, 3)):
        lab.log.group("r1").acknowledge([], Report("r1", at_us, unacknowledged))
    lab.acknowledgements.step()
    member = Member("r1", "", "", Position(1, 0), 1, 0, unacknowledged=4)
    assert lab.acknowledgements.unacknowledged(member) == 3
    assert lab.acknowledgements.unacknowledged(member._replace(seen_at_us=3)) == 4
    assert lab.acknowledgements.unacknowledged(member._replace(replica="r2", unacknowledged=None)) is None


def test_more_acknowledgements_than_replicas_are_refused_before_the_write(fake: Any) -> None:
    with pytest.raises(TooFewReplicas, match="3 replicas are required, but 2 are registered") as failed:
        Lab(fake).wait({}, acks=3)
    problem = problem_of(failed.value)
    assert problem is not None
    assert problem.status == 400


def test_the_reports_are_read_only_while_writes_wait(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acks, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(acks, "_LINGER_SECONDS", 0.01)
    lab = Lab(fake)
    lab.acknowledgements.step()
    assert fake.pubsub_numsub("lab14:acknowledged") == [("lab14:acknowledged", 0)]
    lab.acknowledge("r1")
    assert lab.wait(lab.write(), acks=1, timeout_ms=1)["acks_reached"] == 0
    lab.acknowledgements._waiting[Position(9, 9)] = []
    lab.acknowledgements.step()
    assert fake.pubsub_numsub("lab14:acknowledged") == [("lab14:acknowledged", 1)]
    lab.acknowledgements._waiting.clear()
    lab.acknowledgements.step()
    assert fake.pubsub_numsub("lab14:acknowledged") == [("lab14:acknowledged", 0)]


def test_without_acks_no_place_is_taken(fake: Any) -> None:
    required = Lab(fake, waiting_max=1).acknowledgements.required
    with required(0) as replicas, required(1):
        assert replicas == set()
