"""How long until every replica has a write."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import numpy as np

from broker.delay.prediction import predict
from broker.stats import spread
from nodes.experiments.spec import Windows
from nodes.http.peers import Ask, PeerError
from nodes.worker.run import Result, Run, moments, rmse, rounded

_POINTS = 61
_BEYOND = 1.2


class Measured:
    """The windows so far. Written by many threads, each by one call that cannot be interrupted."""

    def __init__(self) -> None:
        self.window_ms: list[float | None] = []
        self.applied_ms: dict[str, list[float]] = {}
        self.errors: list[str] = []

    def add(self, found: dict[str, Any]) -> None:
        """One answer of ``/write-and-wait``."""
        self.window_ms.append(found["consistency_time_ms"])
        for replica, wait in found["replicas"].items():
            if "applied_after_ms" in wait:
                self.applied_ms.setdefault(replica, []).append(wait["applied_after_ms"])

    def converged_ms(self) -> list[float]:
        """The windows that came to an end."""
        return [window for window in list(self.window_ms) if window is not None]

    def figures(self) -> Result:
        """In short."""
        converged = self.converged_ms()
        return {
            "window_ms": spread(converged),
            "timeouts": len(self.window_ms) - len(converged),
            "errors": len(self.errors),
            "error": self.errors[-1] if self.errors else None,
            "applied_after_ms": {replica: spread(values) for replica, values in sorted(self.applied_ms.items())},
        }


def measure(spec: Windows, run: Run) -> Result:
    """Write at random moments, and measure each window through the client. Raises ``TargetError`` or ``Stopped``."""
    replicated = run.replicated(spec.rate)
    measured = Measured()
    ask = Ask(
        f"{run.target.client_url}/write-and-wait?timeout_ms={spec.timeout_ms}", "POST", wait_ms=spec.timeout_ms + 6000
    )

    def write(number: int) -> None:
        try:
            reply = run.target.peers.ask(ask._replace(body={"key": f"experiment-{number % 1000}", "value": number}))
        except PeerError as error:
            measured.errors.append(str(error))
            return
        if reply.status == 200:
            measured.add(reply.body)
        else:
            measured.errors.append(str(reply.body.get("detail")))

    agenda = run.agenda()
    began = run.now()
    for number, moment in enumerate(moments(Random(spec.seed), spec.writes, spec.rate)):  # noqa: S311
        agenda.at(began + moment, partial(write, number))
    run.perform(agenda, lambda: (len(measured.window_ms) / spec.writes, measured.figures()))

    longest_ms = max([1.0, *measured.converged_ms()])
    t_ms = np.linspace(0, _BEYOND * longest_ms, _POINTS)
    ended = np.sort(measured.converged_ms())
    share = np.searchsorted(ended, t_ms, side="right") / max(1, len(measured.window_ms))
    predicted = predict(list(replicated.values()), t_ms.tolist()).converged
    return {
        **measured.figures(),
        "late_ms": spread([late * 1000 for late in agenda.late_seconds]),
        "converged": {
            "t_ms": rounded(t_ms, 3),
            "measured": rounded(share),
            "predicted": rounded(predicted),
            "rmse": rmse(share, predicted),
        },
        "raw": {"window_ms": measured.window_ms, "applied_after_ms": measured.applied_ms},
    }
