"""The way of an experiment between client and worker: an RQ queue, and beside it what RQ does not carry.

RQ's job says *that* an experiment is to be run. Everything else is under the lab's own keys, as readable JSON:

=============================== ======================================================================================
``lab14:experiment:<id>``       the experiment as its worker last reported it
``lab14:experiment:<id>:stop``  a list; what is pushed to it ends the experiment: how, and why
``lab14:experiment-held``       the settings, by replica, that are to be put back after the experiment that runs
``lab14:experiment-worker``     the worker whose turn it is; the key expires unless it is renewed
=============================== ======================================================================================
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple, cast

from rq import Queue
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from broker.connection import Client, translated
from nodes.experiments.spec import Experiment

TURN_SECONDS = 5
_TASK = "nodes.worker.perform.perform"
_FORGET_SECONDS = 86_400
_REPORT_SECONDS = 30 * 86_400
_FOREVER = -1
_RENEW = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class Stop(NamedTuple):
    """How an experiment is to end early: ``failed`` or ``cancelled``, and the reason as a sentence."""

    state: str
    reason: str


class ExperimentQueue:
    """Experiments that wait, run and report. Methods raise ``broker.errors.LogError``. Thread-safe.

    The connection has to answer in bytes, which is what RQ works with.
    """

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client
        self._prefix = f"{namespace}:experiment"
        self.jobs = Queue(f"{namespace.strip('{}')}-experiments", connection=client, serializer=JSONSerializer)

    # -- for the client -----------------------------------------------------------------------------------------------

    def submit(self, experiment: Experiment) -> None:
        """Put an experiment at the end of the queue."""
        name = experiment["id"]
        with translated():
            # RQ would end it after three minutes and forget its result after eight; the worker bounds and keeps both.
            self.jobs.enqueue_call(
                _TASK, (experiment,), job_id=name, description=name, timeout=_FOREVER, result_ttl=0,
                failure_ttl=_FORGET_SECONDS,
            )  # fmt: skip

    def withdraw(self, name: str) -> bool:
        """Take an experiment out of the queue; ``False`` where it has left it already."""
        with translated():
            waited = bool(self._client.lrem(self.jobs.key, 1, name))
        if waited:
            self._forget_job(name)
        return waited

    def is_lost(self, name: str) -> bool:
        """Whether RQ knows nothing of an experiment any more, or took it for failed, which a worker would report."""
        with translated():
            try:
                status = Job.fetch(name, connection=self._client, serializer=JSONSerializer).get_status()
            except (NoSuchJobError, InvalidJobOperation):  # it may vanish while it is looked at
                return True
        return status in {JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED}

    def reported(self, name: str) -> Experiment | None:
        """What the worker last said of an experiment."""
        with translated():
            text = self._client.get(f"{self._prefix}:{name}")
        return None if text is None else cast("Experiment", json.loads(text))

    def forget(self, name: str) -> None:
        """Remove what was reported of an experiment, and what was to end it. Its job is RQ's to remove."""
        with translated():
            self._client.delete(f"{self._prefix}:{name}", f"{self._prefix}:{name}:stop")

    def stop(self, name: str, stop: Stop) -> None:
        """Tell whoever runs an experiment to end it."""
        key = f"{self._prefix}:{name}:stop"
        with translated():
            pipe = self._client.pipeline(transaction=True)
            pipe.rpush(key, json.dumps(stop))
            pipe.expire(key, _FORGET_SECONDS)
            pipe.execute()

    # -- for the worker -----------------------------------------------------------------------------------------------

    def report(self, experiment: Experiment) -> None:
        """Say how an experiment is."""
        with translated():
            self._client.set(f"{self._prefix}:{experiment['id']}", json.dumps(experiment), ex=_REPORT_SECONDS)

    def wait_for_stop(self, name: str, timeout_seconds: float) -> Stop | None:
        """Wait until somebody tells the experiment to end, or the time is up."""
        with translated():
            found = self._client.blpop([f"{self._prefix}:{name}:stop"], timeout=timeout_seconds)
        return None if found is None else Stop(*json.loads(found[1]))

    def hold(self, settings: dict[str, Any]) -> None:
        """Remember, across the death of the worker, what is to be put back; nothing any more where it is empty."""
        with translated():
            if settings:
                self._client.set(f"{self._prefix}-held", json.dumps(settings))
            else:
                self._client.delete(f"{self._prefix}-held")

    def held(self) -> dict[str, Any]:
        """What ``hold`` remembered last."""
        with translated():
            text = self._client.get(f"{self._prefix}-held")
        return {} if text is None else cast("dict[str, Any]", json.loads(text))

    def abandoned(self) -> list[Experiment]:
        """What some worker took out of the queue and has not brought to an end, as far as it was reported.

        Only for the worker whose turn begins: while it is another one's, that is what runs.
        """
        with translated():
            taken = self._client.lrange(self.jobs.intermediate_queue.key, 0, -1)
            names = {name.decode() for name in taken} | set(self.jobs.started_job_registry.get_job_ids(cleanup=False))
            found = []
            for name in sorted(names):
                with suppress(NoSuchJobError):
                    job = Job.fetch(name, connection=self._client, serializer=JSONSerializer)
                    found.append(self.reported(name) or cast("Experiment", job.args[0]))
            self._client.delete(self.jobs.intermediate_queue.key)
        return found

    def abandon(self, experiment: Experiment) -> None:
        """Report the end of an abandoned experiment, and make RQ forget its job; the report stays for the client."""
        self.report(experiment)
        self._forget_job(experiment["id"])

    def _forget_job(self, name: str) -> None:
        with translated(), suppress(NoSuchJobError):
            Job.fetch(name, connection=self._client, serializer=JSONSerializer).delete()

    def server(self) -> str:
        """The log server by name and version."""
        with translated():
            found = self._client.info("server")
        return f"Valkey {found['valkey_version']}" if "valkey_version" in found else f"Redis {found['redis_version']}"

    def take_turn(self, worker: str) -> bool:
        """Become the one worker, or remain it, for the next five seconds; ``False`` while another one is."""
        with translated():
            renewed = self._client.eval(_RENEW, 1, f"{self._prefix}-worker", worker, TURN_SECONDS * 1000)
        return bool(renewed)

    def end_turn(self, worker: str) -> None:
        """Let another worker have its turn at once."""
        with translated():
            self._client.eval(_RELEASE, 1, f"{self._prefix}-worker", worker)
