"""What simulated clients send to a primary, and what they tell the judge of its answers."""

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import pytest

from broker.position import START, Position
from lab.simulation.http_connections import Host, HttpConnections
from lab.simulation.judges import Judge
from lab.simulation.model import Newest
from lab.simulation.scheduler import Process, Scheduler
from lab.simulation.trace import Trace
from lab.simulation.workload import Clients

SECONDS, SINGLE_AFTER_SECONDS = 60, 30


class Told(Judge):
    """What clients tell of each write id."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler, Trace(scheduler))
        self.acknowledgements: dict[str, Position] = {}
        self.refusals: list[str] = []

    def acknowledged(self, position: Position, write_id: str, newest: Newest) -> None:
        assert write_id not in self.acknowledgements
        self.acknowledgements[write_id] = position
        super().acknowledged(position, write_id, newest)

    def refused(self, write_id: str) -> None:
        self.refusals.append(write_id)
        super().refused(write_id)


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


class Primary:
    """A primary that takes batches and, after a while, single writes. ``answer``: its answer to an attempt to write a
    batch, by the attempt's number and the number of items.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.attempts: dict[str, list[Any]] = {}  # the bodies by idempotency key
        self.position = START
        self.answer: Callable[[int, int], Answer] = lambda _, count: self.write(count)

    def write(self, count: int) -> Answer:
        first = self.position.version + 1
        self.position = Position(1, self.position.version + count)
        return Answer(200, {"results": [{"position": f"1-{first + n}"} for n in range(count)]})

    def __call__(self, environ: dict[str, Any], start: Callable[..., object]) -> list[bytes]:
        found = Answer(503, {"outcome": "not_applied"})
        if environ["PATH_INFO"] == "/data/batch":
            body = json.load(environ["wsgi.input"])
            attempts = self.attempts.setdefault(environ["HTTP_IDEMPOTENCY_KEY"], [])
            attempts.append(body)
            found = self.answer(len(attempts), len(body))
        elif environ["PATH_INFO"] == "/data" and self.scheduler.now_seconds() > SINGLE_AFTER_SECONDS:
            found = Answer(200, {"position": "1-1"})
        start(f"{found.status} as it is", [])
        return [json.dumps(found.body).encode()]

    def write_ids(self) -> set[str]:
        return {f"{key}-{n}" for key, (body, *_) in self.attempts.items() for n in range(1, len(body) + 1)}


@pytest.fixture
def judge(scheduler: Scheduler) -> Told:
    return Told(scheduler)


@pytest.fixture
def primary(http: HttpConnections, scheduler: Scheduler) -> Primary:
    found = Primary(scheduler)
    http.hosts["127.0.0.1:8000"] = Host(Process("primary"), found)
    return found


@pytest.fixture
def clients(scheduler: Scheduler, judge: Told, primary: Primary) -> Clients:
    process = Process("client")
    found = Clients(scheduler, judge, process, Random(14), "http://127.0.0.1:8000")
    scheduler.spawn(found.start, process)
    return found


def settle(clients: Clients, scheduler: Scheduler) -> None:
    scheduler.run(SECONDS)
    clients.is_paused = True
    scheduler.run(SECONDS + 20)
    assert not clients.in_progress


def test_each_write_is_told_as_acknowledged_at_its_position(
    clients: Clients, primary: Primary, judge: Told, scheduler: Scheduler
) -> None:
    settle(clients, scheduler)
    assert judge.acknowledgements.keys() == primary.write_ids()
    assert {position.version for position in judge.acknowledgements.values()} == set(
        range(1, primary.position.version + 1)
    )
    assert 1 < len(primary.attempts) / SECONDS < 3
    assert 20 < primary.position.version / SECONDS < 80


def test_a_write_of_unknown_outcome_is_repeated_as_it_was_with_the_same_key(
    clients: Clients, primary: Primary, judge: Told, scheduler: Scheduler
) -> None:
    def answer(attempt: int, count: int) -> Answer:
        if attempt == 1:
            scheduler.sleep(5)  # its client gives up meanwhile
        return primary.write(count) if attempt == 2 else Answer(503, {"outcome": "unknown"})

    primary.answer = answer
    settle(clients, scheduler)
    repeated = [bodies for bodies in primary.attempts.values() if len(bodies) > 1]
    assert len(primary.attempts) / 3 < len(repeated) < len(primary.attempts)
    assert all(body == bodies[0] for bodies in repeated for body in bodies)
    assert len(judge.acknowledgements) == sum(len(bodies[0]) for bodies in repeated) == primary.position.version
    assert not judge.refusals


def test_a_write_that_is_not_applied_by_any_attempt_is_told_as_refused(
    clients: Clients, primary: Primary, judge: Told, scheduler: Scheduler
) -> None:
    primary.answer = lambda *_: Answer(503, {"outcome": "not_applied"})
    settle(clients, scheduler)
    assert set(judge.refusals) == primary.write_ids()
    assert len(judge.refusals) == len(set(judge.refusals))
    assert not judge.acknowledgements


def test_a_write_is_not_told_as_refused_if_the_outcome_of_one_attempt_is_unknown(
    clients: Clients, primary: Primary, judge: Told, scheduler: Scheduler
) -> None:
    primary.answer = lambda attempt, _: Answer(503, {"outcome": "unknown" if attempt == 1 else "not_applied"})
    settle(clients, scheduler)
    assert {len(bodies) for bodies in primary.attempts.values()} == {1, 2, 3}
    assert not judge.refusals
    assert not judge.acknowledgements
    assert clients.outcomes["unknown"] == len(primary.write_ids())


def test_of_a_batch_each_item_is_told_by_its_own_result(
    clients: Clients, primary: Primary, judge: Told, scheduler: Scheduler
) -> None:
    def answer(_: int, count: int) -> Answer:
        results = [*primary.write(1).body["results"], *[{"outcome": "not_applied"}] * (count - 1)]
        return Answer(207 if count > 1 else 200, {"results": results})

    primary.answer = answer
    settle(clients, scheduler)
    assert judge.acknowledgements.keys() == {f"{key}-1" for key in primary.attempts}
    assert set(judge.refusals) == primary.write_ids() - judge.acknowledgements.keys()
    assert {len(bodies) for bodies in primary.attempts.values()} == {1}


def test_clients_prove_that_writes_are_acknowledged_again_while_they_pause(
    clients: Clients, primary: Primary, scheduler: Scheduler
) -> None:
    clients.is_paused = True
    clients.prove_writable()
    scheduler.run(SINGLE_AFTER_SECONDS)
    before = clients.is_writable
    scheduler.run(SECONDS)
    assert (before, clients.is_writable) == (False, True)
    assert not primary.attempts
