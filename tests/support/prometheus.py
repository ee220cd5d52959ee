"""A real Prometheus that scrapes a local lab, or a probe, with the project's own configuration."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab.local.supervisor import Lab
from tests.support.http import POOL
from tests.support.until import until

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
PROBE = DASHBOARDS.parent / "docs" / "probe.md"
DASHBOARD = DASHBOARDS / "grafana" / "dashboards" / "eventual-consistency.json"
# Shorter intervals than on the stack, so tests see changes sooner.
_INTERVALS = {
    "scrape_interval: 1s": "scrape_interval: 200ms",
    "scrape_timeout: 1s": "scrape_timeout: 200ms",
    "evaluation_interval: 2s": "evaluation_interval: 200ms",
    "refresh_interval: 5s": "refresh_interval: 1s",
}
# Values of Grafana's variables for a time range of five minutes.
_VARIABLES = {"$__rate_interval": "1s", "$__range": "300s", "$job": ".+", "$replica": ".+"}


def panels() -> dict[str, list[str]]:
    """Return the dashboard's queries by panel title, with values for Grafana's variables."""
    found: dict[str, list[str]] = {}
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, value in _VARIABLES.items():
                expression = expression.replace(variable, value)
            found.setdefault(panel["title"], []).append(expression)
    return found


class Prometheus:
    """A Prometheus on a free port, with the project's rules. ``with Prometheus.of(lab) as prometheus:`` runs it."""

    def __init__(self, configuration: str, targets: int) -> None:
        self._configuration, self._targets = configuration, targets
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"

    @classmethod
    def of(cls, lab: Lab) -> Prometheus:
        addresses = {
            "lab14-primary:8000": lab.primary_url.removeprefix("http://"),
            "lab14-client:8003": lab.client_url.removeprefix("http://"),
            "lab14-worker:8078": lab.worker_url.removeprefix("http://"),
        }
        return cls(_replaced(_configuration(), addresses), targets=5)

    @classmethod
    def of_probe(cls, url: str) -> Prometheus:
        """With the job of the document in place of the lab's."""
        (job,) = re.findall(r"^```yaml\n(scrape_configs:.*?)^```", PROBE.read_text(encoding="utf-8"), re.M | re.DOTALL)
        job = _replaced(job, {"127.0.0.1:9109": url.removeprefix("http://")})
        return cls(re.sub(r"^scrape_configs:.*", job, _configuration(), flags=re.M | re.DOTALL), targets=1)

    def __enter__(self) -> Prometheus:
        """Start and wait until every target is scraped."""
        # Not tmp_path, because pytest would keep each run's database.
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        here = Path(self._directory.name)
        (here / "prometheus.yml").write_text(self._configuration, encoding="utf-8")
        shutil.copy(DASHBOARDS / "prometheus" / "rules.yml", here)
        command = ["prometheus", f"--config.file={here}/prometheus.yml", f"--storage.tsdb.path={here}/data"]
        command += [f"--web.listen-address={self._address}", "--enable-feature=exemplar-storage", "--log.level=warn"]
        self._process = subprocess.Popen(command)
        until(lambda: len(self.query("up == 1") or []) == self._targets, 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._directory.cleanup()

    def api(self, path: str) -> Any:
        """Return the data of an API response, or ``None`` while Prometheus does not respond."""
        try:
            answer = POOL.request("GET", f"http://{self._address}/api/v1/{path}").json()
        except Exception:  # noqa: BLE001 - it is not listening yet
            return None
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]] | None:
        """Return an expression's current samples."""
        data = self.api(f"query?query={quote(expression)}&time={time.time()}")
        return None if data is None else list(data["result"])

    def values(self, expression: str, label: str = "replica") -> dict[str, float]:
        """Return an expression's current values by label."""
        return {found["metric"].get(label, ""): float(found["value"][1]) for found in self.query(expression) or []}


def _configuration() -> str:
    return _replaced((DASHBOARDS / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"), _INTERVALS)


def _replaced(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text
