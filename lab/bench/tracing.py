"""What tracing costs: with a collector that takes everything, and with none where one should be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from lab.bench import load, setup
from lab.bench.figure import Figure, Target
from lab.bench.scale import Scale
from lab.bench.step import Step
from lab.bench.writes import CONNECTIONS, requests
from lab.local.layout import free_port
from lab.local.supervisor import Lab


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    """Labs side by side: tracing off; on, with a collector; on, and every request traced; on, without a collector.

    And what is the instrumentation's alone: the bare app with and without it.
    """
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
        labs = {
            name: stack.enter_context(setup.running(environment=environment))
            for name, environment in environments.items()
        }
        bare = {
            "bare": stack.enter_context(setup.bare_primary(labs["off"])),
            "bare traced": stack.enter_context(setup.bare_primary(labs["off"], "tracing", environments["every"])),
        }
        yield from _compared(labs, bare, scale, step)


def _compared(labs: Mapping[str, Lab], bare: Mapping[str, str], scale: Scale, step: Step) -> Iterator[Figure]:
    urls = {**{name: lab.primary_url for name, lab in labs.items()}, **bare}
    found: dict[str, list[load.Loaded]] = {name: [] for name in urls}
    for number in range(scale.rounds + 1):
        for name, url in urls.items():
            loaded = load.run(url, requests(), CONNECTIONS, scale.seconds)
            if name in labs:
                setup.settle(labs[name])
            step(f"tracing {name}")
            if number:  # the first round makes connections and fills caches
                found[name].append(loaded)
    each = {name: [one.per_second for one in loads] for name, loads in found.items()}
    p50 = {name: [one.quantile_ms(0.5) for one in loads] for name, loads in found.items()}
    yield Figure(
        "tracing", "POST /data, tracing on", "1/s", each["on"], "tracing off", each["off"], Target("at least", 0.6)
    )
    yield Figure("tracing", "the same, every request traced", "1/s", each["every"], "tracing off", each["off"])
    yield Figure(
        "tracing", "a bare Flask app, every request traced", "1/s", each["bare traced"], "not traced", each["bare"]
    )
    yield Figure(
        "tracing", "its p50, no collector there", "ms",
        p50["down"], "collector there", p50["on"], Target("at most", 1.1),
    )  # fmt: skip
