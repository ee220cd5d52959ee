"""Faults of the log server, with a stub of what fails it over."""

from typing import Any, cast

import pytest

from broker.address import Server
from broker.errors import LogUnreachable
from nodes.client import log_faults
from nodes.client.log_faults import ISOLATE, LOG, LogFault, LogFaults
from tests.support.until import until

MASTER = Server("h", 1)


class Failovers:
    are_possible = True

    def __init__(self, *silent: list[Server]) -> None:
        """``silent``: the servers that do not answer, at each attempt to heal."""
        self.silent = list(silent)
        self.heals = 0

    def isolate_master(self) -> Server:
        return MASTER

    def heal(self) -> list[Server]:
        self.heals += 1
        return self.silent.pop(0) if self.silent else []


class Events:
    def __init__(self) -> None:
        self.published: list[str] = []

    def publish(self, kind: str, **_: Any) -> None:
        self.published.append(kind)


def faults(failovers: Failovers, events: Events) -> LogFaults:
    return LogFaults(cast("Any", failovers), cast("Any", events), lambda: 0)


def isolate(found: LogFaults, duration_ms: int | None = None) -> None:
    found.start(LogFault.model_validate({"replica": LOG, "fault": ISOLATE, "duration_ms": duration_ms}))


def test_an_isolated_server_that_does_not_answer_stays_isolated_until_it_does() -> None:
    events = Events()
    found = faults(Failovers([MASTER], [Server("h", 2)]), events)
    isolate(found)
    with pytest.raises(LogUnreachable, match="h:1 does not answer, and may still be isolated"):
        found.end()
    assert [one["fault"] for one in found.show()["faults"]] == [ISOLATE]
    assert found.end() == [ISOLATE]
    assert (found.show()["faults"], events.published) == ([], ["fault", "fault_ended"])


def test_a_fault_whose_time_is_up_is_ended_again_until_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_faults, "_AGAIN_SECONDS", 0.01)
    failovers = Failovers([MASTER], [MASTER])
    found = faults(failovers, Events())
    isolate(found, duration_ms=1)
    until(lambda: not found.show()["faults"])
    assert failovers.heals == 3


def test_a_server_that_an_earlier_process_isolated_is_healed_by_a_reset() -> None:
    failovers = Failovers()
    assert faults(failovers, Events()).end() == []
    assert failovers.heals == 1
