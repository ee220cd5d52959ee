"""The local runner, with processes that stand for the lab's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import SystemRandom
from threading import Thread
from typing import Any

import pytest

from lab import layout, server
from lab.errors import LabError
from lab.layout import Options
from lab.runner import Lab

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class Healthy(BaseHTTPRequestHandler):
    """A node of some lab, which is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening(*ports: int) -> Iterator[None]:
    """Healthy nodes that belong to another lab."""
    with ExitStack() as opened:
        for port in ports:
            found = opened.enter_context(ThreadingHTTPServer(("127.0.0.1", port), Healthy))
            opened.callback(found.shutdown)
            Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path / "lab", base_port=layout.free_base_port(SystemRandom()), replicas=1)


def test_health_that_another_lab_answers_is_not_taken_for_the_own(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when two labs begin on the same ports at the same moment, and either finds them free."""
    monkeypatch.setattr(layout, "require_free_ports", lambda _: None)
    monkeypatch.setattr(Lab, "_require_log_server", lambda _: None)
    genuine = Lab._add
    monkeypatch.setattr(Lab, "_add", lambda lab, name, _, environment: genuine(lab, name, SLEEP, environment))
    own = Lab(Options(options.data_dir, options.base_port, replicas=1, redis_url="redis://x"))
    ports = [place.port for place in layout.places(options)]
    try:
        with listening(*ports), pytest.raises(LabError, match=rf"port {options.base_port} is in use"):
            own.start()
        assert own.pids == {}
    finally:
        own.stop()


def test_a_log_server_that_another_lab_started_is_not_taken_for_the_own(
    options: Options, monkeypatch: pytest.MonkeyPatch, servers: Any
) -> None:
    monkeypatch.setattr(layout, "require_free_ports", lambda _: None)
    monkeypatch.setattr(layout, "log_server_port", lambda _: servers("valkey").port)
    monkeypatch.setattr(server, "log_server_port", lambda _: servers("valkey").port)
    with pytest.raises(LabError, match=r"the log server does not start: .*port"):
        Lab(options).start()
