"""Faults of the log server, for ``/faults`` beside those of replicas: a failover, and a master that is cut off."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from broker.address import Server
from broker.errors import LogError, LogUnreachable
from broker.failover import Failovers
from broker.registry import Events
from nodes.http.api import Body
from nodes.http.times import timestamp

_AGAIN_SECONDS = 1.0  # to end a fault whose time is up, if the server did not answer
LOG = "log"  # in place of a replica's id
ISOLATE = "isolate-master"
LogFaultName = Literal["failover", "failback", "isolate-master"]


class LogFault(Body):
    """``isolate-master`` lasts until ended, or for ``duration_ms``; the others are momentary."""

    replica: Literal["log"]
    fault: LogFaultName
    duration_ms: Annotated[int, Field(ge=1, le=3_600_000)] | None = None

    @model_validator(mode="after")
    def _check_duration(self) -> "LogFault":
        if self.fault != ISOLATE and self.duration_ms is not None:
            raise ValueError("duration_ms: not allowed, because this fault is momentary")
        return self


class LogFaults:
    """Methods raise ``broker.errors.LogError``. Thread-safe."""

    def __init__(self, failovers: Failovers, events: Events, now_us: Callable[[], int]) -> None:
        self._failovers, self._events, self._now_us = failovers, events, now_us
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._isolated: dict[str, Any] | None = None

    @property
    def are_possible(self) -> bool:
        return self._failovers.are_possible

    def start(self, body: LogFault) -> dict[str, Any]:
        """Start it; the answer has the server that was the master."""
        with self._lock:
            server = str(self._act(body.fault)())
            self._report("fault", body.fault, server)
            now_us, duration_us = self._now_us(), None if body.duration_ms is None else body.duration_ms * 1000
            shown = {
                "fault": body.fault,
                "parameters": {"master": server},
                "since": timestamp(now_us),
                "until": None if duration_us is None else timestamp(now_us + duration_us),
            }
            if body.fault == ISOLATE:
                self._isolated = shown
                self._set_timer(None if duration_us is None else duration_us / 1e6)
        return {"replica": LOG, **shown}

    def end(self) -> list[str]:
        """Heal what was isolated, also by an earlier process; return the names of the faults that ended."""
        if not self.are_possible:
            return []
        with self._lock:
            silent = [str(server) for server in self._failovers.heal()]
            if self._isolated is None:
                return []
            if (master := self._isolated["parameters"]["master"]) in silent:
                raise LogUnreachable(f"{master} does not answer, and may still be isolated")
            self._set_timer(None)
            self._report("fault_ended", ISOLATE, master)
            self._isolated = None
            return [ISOLATE]

    def show(self) -> dict[str, Any]:
        return {"faults": [self._isolated] if self._isolated else [], "available": list(get_args(LogFaultName))}

    def _act(self, name: LogFaultName) -> Callable[[], Server]:
        if name == "failover":
            return self._failovers.failover
        return self._failovers.failback if name == "failback" else self._failovers.isolate_master

    def _set_timer(self, seconds: float | None) -> None:
        """Replace the timer of an earlier start."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else threading.Timer(seconds, self._time_is_up)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def _time_is_up(self) -> None:
        try:
            self.end()
        except LogError:  # the server hangs, or is restarting
            with self._lock:
                self._set_timer(_AGAIN_SECONDS)

    def _report(self, kind: str, fault: str, server: str) -> None:
        with suppress(LogError):  # the log server is the one that is gone
            self._events.publish(kind, replica=LOG, fault=fault, parameters="{}", master=server)
