"""The cost of tracing, with a collector that accepts everything and without a collector."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

from lab.bench import load, setup
from lab.bench.figure import Figure, Scale, Step, Target
from lab.bench.writes import CONNECTIONS, REQUESTS
from lab.local.layout import free_port
from lab.local.supervisor import Lab


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    """Measure labs side by side, and the bare app with and without the instrumentation, which shows its share."""
    sink_port = free_port()
    there = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink_port}"}
    environments: dict[str, dict[str, str]] = {
        "off": {},
        "on": there,
        "every": {**there, "OTEL_TRACES_SAMPLER": "parentbased_always_on"},
        "down": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    }
    with ExitStack() as stack:
        sink = subprocess.Popen([sys.executable, "-m", "lab.bench.baselines.otlp_sink", str(sink_port)])
        stack.enter_context(sink)
        stack.callback(sink.terminate)
        labs = {name: stack.enter_context(Lab.temporary(environment=one)) for name, one in environments.items()}
        urls = {
            **{name: lab.primary_url for name, lab in labs.items()},
            "bare": stack.enter_context(setup.bare_primary(labs["off"])),
            "bare traced": stack.enter_context(setup.bare_primary(labs["off"], "tracing", environments["every"])),
        }
        found: dict[str, list[load.Loaded]] = {name: [] for name in urls}
        for number in range(scale.rounds + 1):
            for name, url in urls.items():
                loaded = load.run(url, REQUESTS, CONNECTIONS, scale.seconds)
                if name in labs:
                    setup.settle(labs[name])
                step(f"tracing {name}")
                if number:  # the first round makes connections and fills caches
                    found[name].append(loaded)
    yield from _figures(found)


def _figures(found: dict[str, list[load.Loaded]]) -> Iterator[Figure]:
    each = {name: [one.per_second for one in loads] for name, loads in found.items()}
    p50 = {name: [one.quantile_ms(0.5) for one in loads] for name, loads in found.items()}
    for name, unit, ours, baseline_name, baseline, target in (
        ("POST /data, tracing on", "1/s", each["on"], "tracing off", each["off"], Target("at least", 0.6)),
        ("the same, every request traced", "1/s", each["every"], "tracing off", each["off"], None),
        ("a bare Flask app, every request traced", "1/s", each["bare traced"], "not traced", each["bare"], None),
        ("its p50 without a collector", "ms", p50["down"], "with a collector", p50["on"], Target("at most", 1.1)),
    ):
        yield Figure("tracing", name, unit, ours, baseline_name, baseline, target)
