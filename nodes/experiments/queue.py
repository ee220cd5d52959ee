"""The path of experiments from client to worker: an RQ queue, plus keys of the lab.

RQ's job carries the id and the specification. Everything else is readable JSON under the lab's keys:

=============================== ======================================================================================
``lab14:experiment:<id>``       the experiment as its worker last reported it
``lab14:experiment:<id>:stop``  a list; a state and a reason pushed to it end the experiment
``lab14:experiment-held``       the settings, by replica, to restore after the current experiment
``lab14:scene-held``            the current scene, with the settings and faults to restore after it
``lab14:experiment-worker``     the worker whose turn it is; the key expires unless it is renewed
=============================== ======================================================================================
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Literal, NamedTuple, cast

from redis.exceptions import LockError
from rq import Queue
from rq.exceptions import InvalidJobOperation
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from broker.address import Cluster, Nowhere, parse
from broker.connection import Client, Link, translated
from nodes.experiments.spec import Experiment
from nodes.runtime.config import ClientConfig, WorkerConfig

TURN_SECONDS = 5
_TASK = "experiment"  # a label: the worker brings the function that performs it
_FORGET_SECONDS = 86_400
_REPORT_SECONDS = 30 * 86_400
_FOREVER = -1
Holder = Literal["experiment", "scene"]


class Stop(NamedTuple):
    """An early end of an experiment: its state, ``failed`` or ``cancelled``, and the reason."""

    state: str
    reason: str


def queue_link(config: ClientConfig | WorkerConfig, log: Link) -> Link:
    """Return the link to the server of the queue, which is the log's unless another one is configured."""
    address = parse(config.queue_url)
    if isinstance(address, Cluster):
        return Link(Nowhere("experiments do not run on a cluster; set LAB_QUEUE_URL to the URL of a single server"))
    return log if config.queue_url == config.redis_url else Link(address)


class ExperimentQueue:
    """Methods raise ``broker.errors.LogError``. Thread-safe. The connection must return bytes, which RQ requires."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        self._client: Any = client
        self._namespace = namespace
        self._prefix = f"{namespace}:experiment"
        self.jobs = Queue(f"{namespace.strip('{}')}-experiments", connection=client, serializer=JSONSerializer)

    def submit(self, experiment: Experiment) -> None:
        name = experiment["id"]
        with translated():
            # By default RQ ends a job after three minutes and drops its result after eight; the worker bounds both.
            bounds: Any = {"timeout": _FOREVER, "result_ttl": 0, "failure_ttl": _FORGET_SECONDS}
            self.jobs.enqueue_call(_TASK, (experiment,), job_id=name, description=name, **bounds)

    def withdraw(self, name: str) -> bool:
        """``False`` if the experiment is no longer in the queue."""
        with translated():
            waited = bool(self._client.lrem(self.jobs.key, 1, name))
        if waited:
            self.remove_job(name)
        return waited

    def is_lost(self, name: str) -> bool:
        """Whether RQ has no job of an experiment, or a failed one; workers normally report failures themselves."""
        with translated():
            try:
                job = self.jobs.fetch_job(name)
                return job is None or job.get_status() in {JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED}
            except InvalidJobOperation:  # it vanished between the two commands
                return True

    def reported(self, name: str) -> Experiment | None:
        return cast("Experiment | None", self._read(f"{self._prefix}:{name}"))

    def forget(self, name: str) -> None:
        """Remove an experiment's keys; RQ removes its job."""
        with translated():
            self._client.delete(f"{self._prefix}:{name}", f"{self._prefix}:{name}:stop")

    def stop(self, name: str, stop: Stop) -> None:
        key = f"{self._prefix}:{name}:stop"
        with translated():
            pipe = self._client.pipeline(transaction=True)
            pipe.rpush(key, json.dumps(stop))
            pipe.expire(key, _FORGET_SECONDS)
            pipe.execute()

    def report(self, experiment: Experiment) -> None:
        with translated():
            self._client.set(f"{self._prefix}:{experiment['id']}", json.dumps(experiment), ex=_REPORT_SECONDS)

    def wait_for_stop(self, name: str, timeout_seconds: float) -> Stop | None:
        with translated():
            found = self._client.blpop([f"{self._prefix}:{name}:stop"], timeout=timeout_seconds)
        return None if found is None else Stop(*json.loads(found[1]))

    def hold(self, settings: dict[str, Any], holder: Holder = "experiment") -> None:
        """Store what to restore, which outlives the process that changes it; empty settings remove what is stored."""
        with translated():
            if settings:
                self._client.set(self._held_key(holder), json.dumps(settings))
            else:
                self._client.delete(self._held_key(holder))

    def held(self, holder: Holder = "experiment") -> dict[str, Any]:
        return self._read(self._held_key(holder)) or {}

    def _held_key(self, holder: Holder) -> str:
        return f"{self._namespace}:{holder}-held"

    def _read(self, key: str) -> dict[str, Any] | None:
        with translated():
            return json.loads(self._client.get(key) or "null")  # type: ignore[no-any-return]

    def abandoned(self) -> list[Experiment]:
        """The experiments that a worker took from the queue and did not end, as last reported.

        Only for a worker whose turn starts: in another one's turn these are the experiments that run.
        """
        with translated():
            taken = self._client.lrange(self.jobs.intermediate_queue.key, 0, -1)
            names = {name.decode() for name in taken} | set(self.jobs.started_job_registry.get_job_ids(cleanup=False))
            jobs = [job for name in sorted(names) if (job := self.jobs.fetch_job(name)) is not None]
            found = [self.reported(job.id) or cast("Experiment", job.args[0]) for job in jobs]
            self._client.delete(self.jobs.intermediate_queue.key)
        return found

    def remove_job(self, name: str) -> None:
        with translated():
            if (job := self.jobs.fetch_job(name)) is not None:
                job.delete()

    def server(self) -> str:
        with translated():
            found = self._client.info("server")
        return f"Valkey {found['valkey_version']}" if "valkey_version" in found else f"Redis {found['redis_version']}"

    def turn(self, worker: str) -> Turn:
        return Turn(self._client, f"{self._prefix}-worker", worker)


class Turn:
    """A lease of five seconds, which makes its holder the only worker that runs experiments."""

    def __init__(self, client: Client, key: str, worker: str) -> None:
        self._lock = client.lock(key, timeout=TURN_SECONDS, blocking=False, thread_local=False)
        self._worker = worker

    def take(self) -> bool:
        """Take or renew the turn; ``False`` while another worker has it."""
        with translated():
            try:
                return bool(self._lock.reacquire())
            except LockError:
                return bool(self._lock.acquire(token=self._worker))

    def end(self) -> None:
        with translated(), suppress(LockError):
            self._lock.release()
