"""The worker: performs queued experiments with its given function."""

from typing import Any, cast

import fakeredis

from nodes.experiments.queue import ExperimentQueue
from nodes.experiments.spec import Experiment
from nodes.worker.worker import ExperimentWorker
from tests.support.experiments import document


def test_a_queued_experiment_is_performed_by_the_given_function() -> None:
    client = fakeredis.FakeRedis(protocol=2)
    queue = ExperimentQueue(client)
    performed: list[Experiment] = []
    worker = ExperimentWorker(client, queue, cast("Any", None), "lab14-worker", performed.append)
    worker._turns.stop()  # so that its pause does not wait
    worker._keep_turn()
    queue.submit(document("1", "queued"))
    worker._step()
    assert [experiment["id"] for experiment in performed] == ["1"]
    assert queue.jobs.get_job_ids() == []
    worker.stop()
    assert queue.turn("another").take(), "a stopped worker ends its turn"
