"""The worker: runs experiments from the queue, one at a time, and cleans up after a dead worker."""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from rq import SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty

from broker.connection import Client
from broker.errors import LogError
from nodes.experiments.queue import TURN_SECONDS, ExperimentQueue, Stop
from nodes.experiments.spec import ENDED, Experiment
from nodes.http.times import wall_timestamp
from nodes.runtime.background import Background
from nodes.worker.perform import restore
from nodes.worker.run import Target

Perform = Callable[[Experiment], None]
_logger = logging.getLogger("lab.experiments")
_IDLE_SECONDS = 5  # before a wait for the next experiment is renewed
_TURN_PAUSE_SECONDS = TURN_SECONDS / 5
_END_SECONDS = 4.0  # for an experiment to end when the worker is stopped


class _ThreadWorker(SimpleWorker):
    """RQ's worker in a thread, as the main thread and the signals belong to gunicorn.

    Its ``work`` would install signal handlers and hide errors from the node's health, so this calls its parts directly.
    """

    death_penalty_class = TimerDeathPenalty  # the default one needs signals


class ExperimentWorker:
    """One worker of possibly several that take turns: only one experiment runs at a time.

    A turn is a lease of five seconds, which expires if its worker is killed. At the start of its turn, a worker reports
    the experiments left by its predecessor as failed, and restores the settings.
    """

    def __init__(self, client: Client, queue: ExperimentQueue, target: Target, node_id: str, perform: Perform) -> None:
        self._name = f"{node_id}-{uuid.uuid4().hex[:8]}"
        self._queue = queue
        self._turn = queue.turn(self._name)
        self._target = target
        self._client = client
        # The job always calls ``perform``, whatever its label: RQ imports nothing by name.
        self._job_class = type("ExperimentJob", (Job,), {"func": property(lambda _: perform)})
        self._rq: _ThreadWorker | None = None  # created when a turn starts: its constructor calls the log server
        self._my_turn = False
        self._turns = Background("turn", self._keep_turn)
        self._work = Background("work", self._step)

    def start(self) -> None:
        self._turns.start()
        self._work.start()

    def stop(self) -> None:
        self._turns.stop()
        self._work.stop()
        try:
            if (running := self._running()) is not None:
                self._queue.stop(running, Stop("failed", "the worker was stopped"))
                deadline = time.monotonic() + _END_SECONDS
                while self._running() is not None and time.monotonic() < deadline:
                    time.sleep(0.05)
            self._turn.end()
        except LogError as error:
            _logger.warning("%s", error)  # the next worker cleans up

    def health(self) -> dict[str, str]:
        return {"log": self._turns.trouble or "ok", "work": self._work.trouble or "ok"}

    def _keep_turn(self) -> None:
        mine = self._turn.take()
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
        rq = self._rq = self._rq or self._start_turn()
        restore(self._queue, self._target)  # in case the last experiment failed to
        found = rq.dequeue_job_and_maintain_ttl(_IDLE_SECONDS, _IDLE_SECONDS)
        if found is not None:
            rq.execute_job(*found)

    def _running(self) -> str | None:
        return None if self._rq is None or not self._rq.executions else self._rq.get_current_job_id()

    def _start_turn(self) -> _ThreadWorker:
        abandoned = self._queue.abandoned()
        restore(self._queue, self._target)
        for experiment in abandoned:
            if experiment["state"] not in ENDED:
                _logger.warning("experiment %s was left by a worker that died", experiment["id"])
                reason = "its worker died; the settings are restored"
                experiment |= {"state": "failed", "reason": reason, "ended_at": wall_timestamp()}
            self._queue.report(experiment)
            self._queue.remove_job(experiment["id"])
        options: Any = {"name": self._name, "serializer": JSONSerializer, "job_class": self._job_class}
        rq = _ThreadWorker([self._queue.jobs.name], connection=self._client, **options)
        rq.log.setLevel(logging.WARNING)
        if not rq.connection.exists(rq.key):
            rq.register_birth()  # type: ignore[no-untyped-call]
        return rq
