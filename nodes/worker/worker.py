"""The worker: takes experiments from the queue, one at a time, and clears up after a worker that died over one."""

from __future__ import annotations

import logging
import time
import uuid
from typing import cast

from rq import SimpleWorker
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty

from broker.connection import Client
from broker.errors import LogError
from nodes.experiments.queue import TURN_SECONDS, ExperimentQueue, Stop
from nodes.experiments.spec import ENDED, Experiment
from nodes.http.times import wall_timestamp
from nodes.runtime.background import Background
from nodes.worker.perform import put_back
from nodes.worker.target import Target

_logger = logging.getLogger("lab.experiments")
_IDLE_SECONDS = 5
_TURN_PAUSE_SECONDS = TURN_SECONDS / 5
_END_SECONDS = 4.0


class _ThreadWorker(SimpleWorker):
    """RQ's worker in a thread of a service, whose process belongs to gunicorn."""

    death_penalty_class = TimerDeathPenalty  # the other one needs signals, and so the main thread


class ExperimentWorker:
    """One worker of possibly several, of which one has its turn: only one experiment runs at a time.

    The turn is a lease of five seconds, so that of a worker that was killed ends by itself. Whoever begins a turn first
    reports as failed what its predecessor left unfinished, and puts its settings back.
    """

    def __init__(self, client: Client, queue: ExperimentQueue, target: Target, node_id: str) -> None:
        self._name = f"{node_id}-{uuid.uuid4().hex[:8]}"
        self._queue = queue
        self._target = target
        self._client = client
        self._rq: _ThreadWorker | None = None  # made when a turn begins: it asks the log server who it is
        self._my_turn = False
        self._turns = Background("turn", self._keep_turn)
        self._work = Background("work", self._step)

    def start(self) -> None:
        """Start taking turns and experiments."""
        self._turns.start()
        self._work.start()

    def stop(self) -> None:
        """End the experiment that runs, and wait a little until its settings are back."""
        self._turns.stop()
        self._work.stop()
        if (running := self._running()) is not None:
            try:
                self._queue.stop(running, Stop("failed", "the worker was stopped"))
            except LogError:
                return  # the next worker clears up
            deadline = time.monotonic() + _END_SECONDS
            while self._running() is not None and time.monotonic() < deadline:
                time.sleep(0.05)
        try:
            self._queue.end_turn(self._name)
        except LogError as error:
            _logger.warning("%s", error)

    def health(self) -> dict[str, str]:
        """Whether it can take experiments."""
        return {"log": self._turns.trouble or "ok", "work": self._work.trouble or "ok"}

    def _keep_turn(self) -> None:
        mine = self._queue.take_turn(self._name)
        if not mine:
            if (running := self._running()) is not None:
                self._queue.stop(running, Stop("failed", "another worker took its turn"))
            self._rq = None
        self._my_turn = mine
        self._turns.pause(_TURN_PAUSE_SECONDS)

    def _step(self) -> None:
        if not self._my_turn:
            self._work.pause(_TURN_PAUSE_SECONDS / 4)
            return
        rq = self._rq = self._rq or self._begin_turn()
        put_back(self._queue, self._target)  # where the last experiment could not
        found = rq.dequeue_job_and_maintain_ttl(_IDLE_SECONDS, _IDLE_SECONDS)
        if found is not None:
            rq.execute_job(*found)

    def _running(self) -> str | None:
        """The id of the experiment that runs."""
        return None if self._rq is None or not self._rq.executions else self._rq.get_current_job_id()

    def _begin_turn(self) -> _ThreadWorker:
        """Clear up after the one before."""
        left = self._queue.abandoned()
        put_back(self._queue, self._target)
        for experiment in left:
            ended = experiment["state"] in ENDED
            self._queue.abandon(experiment if ended else _failed(experiment))
        rq = _ThreadWorker([self._queue.jobs.name], name=self._name, connection=self._client, serializer=JSONSerializer)
        rq.log.setLevel(logging.WARNING)
        if not rq.connection.exists(rq.key):
            rq.register_birth()  # type: ignore[no-untyped-call]
        return rq


def _failed(experiment: Experiment) -> Experiment:
    _logger.warning("experiment %s was left by a worker that died", experiment["id"])
    end = {"state": "failed", "reason": "its worker died; the settings are back", "ended_at": wall_timestamp()}
    return cast("Experiment", {**experiment, **end})
