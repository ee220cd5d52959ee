"""The lab on three hosts, with the files of ``deploy/hosts`` and the commands of ``docs/deploy.md``."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml
from redis import RedisError

from broker.address import ask
from tests.support import http
from tests.support.failovers import Judge
from tests.support.hosts import Network
from tests.support.load import Writers
from tests.support.until import until

ROOT = Path(__file__).parents[2]
LOG_HOSTS = (1, 2)
PLACES = {"primary": 1, "replica1": 2, "replica2": 3, "client": 3, "worker": 3}
SWITCH_SECONDS = 40.0
_TESTS = "user tests on >tests ~* &* +@all"  # the tests' own user, for what they look at
_FAST = ["INFO-PERIOD", "300", "PUBLISH-PERIOD", "200", "PING-PERIOD", "200", "ASK-PERIOD", "300"]
# Not needed for a deployment: the whole log for the judgement, and short delays.
_OWN = {"LAB_LOG_KEEP": "900000", "LAB_DELAY_MS": "20", "PYTHONPATH": str(ROOT)}


def blocks(section: str, language: str = "bash") -> list[str]:
    """The blocks of a section of the document."""
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", found, re.MULTILINE | re.DOTALL)


class Deployment:
    """Two log servers, three Sentinels and the nodes. ``network.address(n)`` stands for 10.0.0.n of the files."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.network, self._directory = network, directory
        self._files = directory / "lab-hosts"
        self._processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        (directory / "deploy").mkdir()
        shutil.copytree(ROOT / "deploy/hosts", directory / "deploy/hosts")
        shutil.copytree(ROOT / "dashboards/prometheus", directory / "dashboards/prometheus")
        for block in blocks("Several machines"):
            line = ["bash", "-e", "-c", self._here(block)]
            subprocess.run(line, check=True, cwd=directory, capture_output=True)
        self.environment = self._variables("lab")
        self.token = self.environment["LAB_ADMIN_TOKEN"]
        for host in network.hosts:
            self._configure(host)

    @classmethod
    @contextmanager
    def running(cls, directory: Path) -> Iterator[Self]:
        with Network.of(3) as network:
            found = cls(network, directory)
            try:
                found._start()
                yield found
            finally:
                for process in found._processes.values():
                    process.kill()
                    process.wait()

    def _here(self, text: str) -> str:
        return text.replace("10.0.0.", self.network.address(0)[:-1]).replace("/opt/lab/bin/python", sys.executable)

    def _variables(self, name: str) -> dict[str, str]:
        lines = self._here((self._files / f"{name}.env").read_text(encoding="utf-8")).splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def _on(self, host: int, text: str) -> str:
        """The text with the directories of a host in place of the machine's."""
        return re.sub(r"(?<![\w.])/(etc|var)/", f"{self._directory}/{host}/\\1/", text)

    def _configure(self, host: int) -> None:
        for directory in ("etc/redis", "etc/lab/tls", "var/lib/redis/sentinel", "var/lib/lab"):
            (self._directory / str(host) / directory).mkdir(parents=True)
        tls = self._directory / str(host) / "etc/lab/tls"
        address = self.network.address(host)
        for source, target in {"ca.crt": "ca.crt", f"{address}.crt": "host.crt", f"{address}.key": "host.key"}.items():
            shutil.copy(self._files / source, tls / target)
        for name in ("redis", "sentinel"):
            text = self._on(host, self._here((self._files / f"{name}.conf").read_text(encoding="utf-8")))
            if name == "redis":
                text = re.sub("^# (?=replicaof)", "" if host == 2 else "# ", text, flags=re.MULTILINE) + f"{_TESTS}\n"
            (self._directory / str(host) / f"etc/redis/{name}.conf").write_text(text, encoding="utf-8")

    def _start(self) -> None:
        for host in LOG_HOSTS:
            self._run("redis", host, self._on(host, "redis-server /etc/redis/redis.conf"))
        until(lambda: self.roles() == {1: "master", 2: "slave connected"}, SWITCH_SECONDS)
        for host in self.network.hosts:
            self._run("sentinel", host, self._on(host, "redis-server /etc/redis/sentinel.conf --sentinel"))
        for host in self.network.hosts:  # a demoted master is told soon, which by default takes 10 s
            until(lambda host=host: self.ask_sentinel(host, "DEBUG", *_FAST))
        until(self._are_quiet, SWITCH_SECONDS)
        for name, host in PLACES.items():
            self.start(name, host)
        for name in PLACES:
            until(lambda name=name: self.is_healthy(name), SWITCH_SECONDS)

    def _run(self, name: str, host: int, line: str, env: dict[str, str] | None = None) -> None:
        output = self._directory / str(host) / f"{name}.log"
        self._processes[name, host] = self.network.start(host, shlex.split(line), output, env)

    def start(self, name: str, host: int, **variables: str) -> None:
        """Start a node as the unit does, on a host that its file does not have to name."""
        unit = self._here((self._files / "lab@.service").read_text(encoding="utf-8")).replace("%i", name)
        (data,) = re.findall("^Environment=LAB_DATA_DIR=(.*)$", unit, re.MULTILINE)
        (line,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
        own = {"LAB_DATA_DIR": data, **self.environment, **self._variables(name)}
        found = {key: self._on(host, value) for key, value in own.items()}
        found |= {"LAB_HOST": self.network.address(host), "PATH": "/usr/bin:/bin", **_OWN, **variables}
        self._run(name, host, line.replace("${ROLE}", found["ROLE"]), found)

    def stop(self, name: str, host: int) -> None:
        process = self._processes.pop((name, host))
        process.terminate()
        process.wait(20)

    # -- the nodes ----------------------------------------------------------------------------------------------------
    def url(self, name: str, host: int | None = None) -> str:
        return f"http://{self.network.address(host or PLACES[name])}:{self._variables(name)['LAB_PORT']}"

    def health(self, name: str, host: int | None = None) -> tuple[int, dict[str, Any]]:
        """Status 0 if it does not answer."""
        try:
            return http.ask("GET", f"{self.url(name, host)}/health")
        except (http.urllib3.exceptions.HTTPError, ValueError):
            return 0, {}

    def is_healthy(self, name: str, host: int | None = None) -> bool:
        return self.health(name, host)[0] == 200

    def ask(self, method: str, url: str, body: Any = None, *, status: int = 200) -> dict[str, Any]:
        """Send a request with the token; the answer must have this status."""
        found, answer = http.ask(method, url, body, Authorization=f"Bearer {self.token}")
        assert found == status, answer
        return answer

    def prometheus(self) -> dict[str, Any]:
        return dict(yaml.safe_load((self._files / "prometheus.yml").read_text(encoding="utf-8")))

    def writers(self, host: int = 1, *, copies: int) -> Writers:
        return Writers(self.url("primary", host), count=6, rate=60, keys=50, query=f"?copies={copies}")

    def judge(self) -> Judge:
        replicas = [self.url(name) for name in ("replica1", "replica2")]
        return Judge(self.log_url, [self.url("primary"), *replicas])

    @property
    def log_url(self) -> str:
        return self._on(1, self.environment["LAB_REDIS_URL"])

    # -- the log servers ----------------------------------------------------------------------------------------------
    def ask_server(self, host: int, *command: str) -> Any:
        """The reply of a log server, ``None`` if it does not answer."""
        return self._ask(f"tests:tests@{self.network.address(host)}:6379", *command)

    def ask_sentinel(self, host: int, *command: str) -> Any:
        password = re.findall("sentinel_password=([^&]*)", self.log_url)[0]
        return self._ask(f":{password}@{self.network.address(host)}:26379", "SENTINEL", *command)

    def _ask(self, server: str, *command: str) -> Any:
        try:
            return ask(f"rediss://{server}?ssl_ca_certs={self._on(1, '/etc/lab/tls/ca.crt')}", *command)
        except RedisError:
            return None

    def roles(self) -> dict[int, str]:
        """``master``, or ``slave`` with the state of its link, by host."""
        found = {host: self.ask_server(host, "ROLE") or [""] for host in LOG_HOSTS}
        return {host: role[0] if role[0] != "slave" else f"slave {role[3]}" for host, role in found.items()}

    def named(self, *hosts: int) -> int | None:
        """The host of the master according to all Sentinels of these hosts."""
        found = {tuple(self.ask_sentinel(host, "GET-MASTER-ADDR-BY-NAME", "lab14") or ()) for host in hosts}
        return next((host for host in LOG_HOSTS if found == {(self.network.address(host), "6379")}), None)

    def is_settled(self) -> bool:
        return sorted(self.roles().values()) == ["master", "slave connected"] and self._are_quiet()

    def wait_until_settled(self) -> None:
        until(self.is_settled, SWITCH_SECONDS)

    def make_master(self, host: int) -> None:
        """Let a host have the master, by a failover if it has not."""
        self.wait_until_settled()

        if self.named(*self.network.hosts) != host:
            until(lambda: self.ask_sentinel(3, "FAILOVER", "lab14"), SWITCH_SECONDS)  # refused shortly after another
            until(lambda: self.named(*self.network.hosts) == host and self.is_settled(), SWITCH_SECONDS)

    def _are_quiet(self) -> bool:
        """Whether all Sentinels know each other and both servers, and find none of them down."""
        for host in self.network.hosts:
            master, replicas = self.ask_sentinel(host, "MASTER", "lab14"), self.ask_sentinel(host, "REPLICAS", "lab14")
            if not master or not replicas:
                return False
            found = dict(zip(master[::2], master[1::2], strict=True))
            flags = [found["flags"], *(one[one.index("flags") + 1] for one in replicas)]
            if (found["num-other-sentinels"], flags) != ("2", ["master", "slave"]):
                return False
        return True
