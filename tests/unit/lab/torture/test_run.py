"""The fault injector, with stub nodes."""

from typing import Any, cast

import pytest

from lab.torture import run
from lab.torture.judge import Floors


def test_a_run_uses_log_order_and_restores_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"http://r1:8001": {"kind": "exponential", "mean_ms": 80}, "http://r2:8002": {"kind": "fixed", "ms": 9}}
    before = {"models": models, "orders": {"http://r1:8001": "arrival", "http://r2:8002": "log"}}
    changes: list[Any] = []
    settled: list[bool] = []

    def call(method: str, url: str, body: Any = None, **_: Any) -> tuple[int, dict[str, Any]]:
        if url.endswith("/admin/replication-delay"):
            changes.append(body)
        healthy = {"status": "ok", "replicas": [{"faults": []}]}
        return 200, before if method == "GET" and url.endswith("-delays") else healthy

    class Target:
        client_url, primary_url = "http://client", "http://primary"

        def restart_ended(self) -> None: ...

        def log_is_settled(self) -> bool:
            settled.append(len(settled) == 1)
            return settled[-1]

    monkeypatch.setattr(run, "call", call)
    injector = run.Injector(cast("Any", Target()), Floors(0), lambda: 0, lambda _: None)
    injector.prepare(["r1", "r2"])
    injector.heal()
    assert settled == [False, True]
    assert [(change["replica"], change["order"]) for change in changes[:2]] == [("r1", "log"), ("r2", "log")]
    assert changes[2:] == [
        {"replica": "r1", "model": models["http://r1:8001"], "order": "arrival"},
        {"replica": "r2", "model": models["http://r2:8002"], "order": "log"},
    ]
