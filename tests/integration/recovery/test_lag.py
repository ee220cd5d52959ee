"""``lag`` in ``XINFO GROUPS``: a number, and right, whatever happens to replicas and the log."""

import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import urllib3

from broker.connection import connect
from lab.local.log_server import binary_path
from lab.local.supervisor import Lab
from tests.conftest import REAL_SERVERS
from tests.integration.conftest import converge, processes, running_lab
from tests.support.history import misstated_lags
from tests.support.http import ask
from tests.support.load import Writers
from tests.support.logserver import LogServer
from tests.support.until import until

_ROUNDS = [*["duplicate", "reset", "resync"] * 5, *["partition", "crash", "kill"] * 3, "restart"]
_MOMENTS = 500


class Trouble:
    """What happens to a lab while ``lag`` is observed. ``happened`` counts what a node did not refuse."""

    def __init__(self, lab: Lab, server: LogServer, load: Writers, chance: random.Random) -> None:
        self._lab, self._server, self._load, self._chance = lab, server, load, chance
        self.happened: Counter[str] = Counter()

    def cause(self, kind: str) -> None:
        replica = self._chance.choice(list(self._lab.replica_urls))
        if kind == "restart":
            self._server.kill()
            self._server.start()
            self.await_writes(1)  # acknowledged by a log that is open again
            self.happened[kind] += 1
        elif kind == "kill":
            with suppress(KeyError, psutil.NoSuchProcess):  # it is restarting
                for process in processes(self._lab.pids[replica]):
                    process.kill()
                    self.happened[kind] += 1
        elif kind == "reset":
            self._ask(kind, f"{self._lab.primary_url}/admin/reset", {})
        elif kind == "resync":
            self._ask(kind, f"{self._lab.replica_urls[replica]}/admin/resync", {})
        else:
            fault = {"replica": replica, "fault": kind} | ({} if kind == "crash" else {"duration_ms": 1000})
            self._ask(kind, f"{self._lab.client_url}/faults", fault)

    def _ask(self, kind: str, url: str, body: dict[str, object]) -> None:
        with suppress(urllib3.exceptions.HTTPError):  # the replica is restarting
            self.happened[kind] += ask("POST", url, body)[0] == 200

    def await_writes(self, count: int) -> None:
        enough = len(self._load.acknowledged) + count
        until(lambda: len(self._load.acknowledged) >= enough, 20)


@pytest.mark.needs("minutes")
@pytest.mark.parametrize("which", REAL_SERVERS)
def test_lag_is_right_at_500_random_moments(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOG_KEEP": "50", "LOG_MAX": "100", "LINE_MAX_ENTRIES": "100"}.items():
        monkeypatch.setenv(f"LAB_{name}", value)
    chance = random.Random(4)
    rounds = chance.sample(_ROUNDS, len(_ROUNDS))
    (tmp_path / "server").mkdir()
    server = LogServer(binary_path(which), tmp_path / "server")
    server.start()
    client = connect(server.url)
    lags: list[int] = []
    try:
        with running_lab(tmp_path / "lab", redis_url=server.url) as lab:
            with Writers(lab.primary_url, count=4, rate=300, keys=20) as load:
                trouble = Trouble(lab, server, load, chance)
                for moment in range(_MOMENTS):
                    if moment % (_MOMENTS // len(_ROUNDS)) == 0 and rounds:
                        trouble.cause(rounds.pop())
                    trouble.await_writes(chance.randrange(1, 5))
                    assert misstated_lags(client) == [], f"moment {moment}, after {trouble.happened}"
                    lags += [group["lag"] for group in client.xinfo_groups("lab14:log")]
            converge(lab, 20)
    finally:
        server.kill()
    print(f"{which}: {_MOMENTS} moments, {trouble.happened}, lag 0 to {max(lags)}")
    assert all(trouble.happened[kind] for kind in _ROUNDS)
    assert max(lags) > 50
