"""The prediction as a metric: current, absent while unknown, and never delaying a scrape."""

import threading
import time

from prometheus_client import CollectorRegistry, generate_latest

from broker.delay.compound import Mixture
from broker.delay.models import DelayModel, Exponential, Fixed, Lognormal, Pareto
from broker.registry import Settings
from nodes.worker.predicted import Predicted
from nodes.worker.run import Target, TargetError
from tests.support.until import until

DOCUMENTED = Mixture(((9, Pareto(20, 3)), (1, Exponential(80))))
COSTLY = Mixture(((1, Lognormal(300, 2.5)),) * 10)


class FakeTarget(Target):
    """A primary that responds immediately, unless ``answers`` is cleared, with one more write each time."""

    def __init__(self, model: DelayModel, replicas: int = 2) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.gone = False
        self.asked = 0
        self._settings = {f"r{number}": Settings(model, Fixed(0), "log", 0) for number in range(replicas)}

    def settings(self) -> dict[str, Settings]:
        self.asked += 1
        assert self.answers.wait(10)
        if self.gone:
            raise TargetError("the primary is gone")
        return self._settings

    def head(self) -> tuple[int, int]:
        return 1, self.asked**2


def registry_of(target: FakeTarget) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Predicted(target))
    return registry


def shares(registry: CollectorRegistry) -> list[float]:
    lines = generate_latest(registry).decode().splitlines()
    return [float(line.split()[-1]) for line in lines if line.startswith("ec_predicted_converged_ratio{")]


def test_the_metric_is_the_share_of_writes_on_every_replica_by_each_boundary() -> None:
    registry = registry_of(FakeTarget(Fixed(500)))
    assert registry.get_sample_value("ec_predicted_converged_ratio", {"le": "0.4"}) == 0
    assert registry.get_sample_value("ec_predicted_converged_ratio", {"le": "0.5"}) == 1


def test_a_scrape_takes_at_most_100_ms_at_any_rate_and_with_any_settings() -> None:
    for model, replicas in ((DOCUMENTED, 2), (COSTLY, 20)):
        registry = registry_of(FakeTarget(model, replicas))
        costs_ms = []
        for _ in range(5):  # the rate is another one each time
            started = time.process_time()
            assert shares(registry)
            costs_ms.append((time.process_time() - started) * 1000)
        print(f"\n{replicas} replicas: {min(costs_ms):.1f} ms")
        assert min(costs_ms) < 100


def test_a_scrape_does_not_wait_for_a_hanging_primary_and_asks_it_only_once() -> None:
    target = FakeTarget(DOCUMENTED)
    registry = registry_of(target)
    known = until(lambda: shares(registry))
    target.answers.clear()
    asked = target.asked
    started = time.monotonic()
    for _ in range(5):
        assert shares(registry) == known, "until the primary has answered or failed, the last answer counts"
    assert time.monotonic() - started < 5
    assert target.asked == asked + 1
    target.gone = True
    target.answers.set()
    until(lambda: shares(registry) == [])
    target.gone = False
    until(lambda: shares(registry))
