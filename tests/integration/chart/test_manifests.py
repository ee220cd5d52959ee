"""The Helm chart: what it renders, rejects, and takes from elsewhere."""

import json
import re
import sys
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest
import urllib3
import yaml

from broker.address import Cluster, Sentinels, parse
from lab import __version__
from lab.local.layout import LOG_SERVER
from lab.local.supervisor import Lab
from nodes.runtime.config import ROLES, VARIABLES, Role, load
from tests.integration.conftest import frozen
from tests.support import chart
from tests.support.chart import CHART, EXPECTED, ROOT, VALUES, helm
from tests.support.http import POOL
from tests.support.until import until

pytestmark = pytest.mark.needs("helm")
# Why: a restart mends no degraded node, so both probes only ask whether it serves; a limit of CPU time delays entries;
# the lab's own images need not be pulled again; the client's volume can be mounted once.
LINT = [
    *("--kubernetes-version", "v1.37", "--min-replicas-deployment", "1", "--ignore-container-cpu-limit"),
    *chain(
        *(
            ("--ignore-test", test)
            for test in ("pod-probes-identical", "container-image-pull-policy", "deployment-strategy")
        )
    ),
]


@pytest.fixture(scope="session")
def rendered() -> dict[str, str]:
    """The manifests of each set of values."""
    return {name: chart.render(name) for name in VALUES}


def templates(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pods of all workloads."""
    return [found["spec"]["template"] for found in manifests if found["kind"] in {"Deployment", "StatefulSet"}]


@pytest.mark.parametrize("name", VALUES)
def test_the_manifests_are_as_expected(rendered: dict[str, str], name: str) -> None:
    """``make chart`` writes what is expected again; what the chart takes from a file is expected by the file's name."""
    assert chart.shortened(rendered[name]) == (EXPECTED / f"{name}.yaml").read_text(encoding="utf-8")


def test_rules_dashboard_and_scripts_are_those_of_the_repository(rendered: dict[str, str]) -> None:
    by_kind = {(found["kind"], found["metadata"]["name"]): found for found in chart.manifests(rendered["sentinels"])}
    rules, dashboard, *_ = chart.SOURCES
    assert by_kind["PrometheusRule", "lab14"]["spec"] == yaml.safe_load(rules.read_text(encoding="utf-8"))
    shown = by_kind["ConfigMap", "lab14-dashboard"]["data"]["eventual-consistency.json"]
    assert json.loads(shown) == json.loads(dashboard.read_text(encoding="utf-8"))
    for path in (CHART / "files").iterdir():
        assert path.resolve() in chart.SOURCES
    for source in chart.SOURCES:
        assert any(
            f"# {source.relative_to(ROOT)}\n" in (EXPECTED / f"{name}.yaml").read_text("utf-8") for name in VALUES
        )


def test_versions_and_images_are_those_of_the_lab() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"] == __version__
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert values["log"]["sentinel"]["image"] == compose["lab14-redis"]["image"]
    assert values["image"]["repository"] == compose["lab14-primary"]["image"]
    for name, replica in values["replicas"].items():
        assert compose[f"lab14-{name}"]["environment"]["LAB_DELAY_MS"] == replica["delayMs"]


def test_the_package_contains_what_the_links_point_to(tmp_path: Path, rendered: dict[str, str]) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    values = str(EXPECTED / "sentinels.values.yaml")
    assert helm("template", "lab", str(package), "-n", "labs", "-f", values).stdout == rendered["sentinels"]


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_confined_and_bounded(rendered: dict[str, str], name: str) -> None:
    manifests = chart.manifests(rendered[name])
    pods = [*templates(manifests), *(found for found in manifests if found["kind"] == "Pod")]
    assert len(pods) == {"url": 6, "sentinels": 8}[name]
    for pod in pods:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            own = container["securityContext"]
            assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert "readinessProbe" in container or pod in manifests
            assert "livenessProbe" in container or pod in manifests


@pytest.mark.parametrize("name", VALUES)
def test_each_node_reads_its_environment(rendered: dict[str, str], name: str) -> None:
    manifests = chart.manifests(rendered[name])
    own = next((found["stringData"] for found in manifests if found["kind"] == "Secret"), {})
    roles = []
    for container in chain.from_iterable(pod["spec"]["containers"] for pod in templates(manifests)):
        if container["name"] not in ROLES:
            continue
        roles.append(role := cast("Role", container["name"]))
        values = {}
        for variable in container["env"]:
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            values[variable["name"]] = own.get(secret["key"], "secret") if secret else variable["value"]
        values["LAB_REDIS_URL"] = values["LAB_REDIS_URL"].replace("$(LOG_PASSWORD)", values.get("LOG_PASSWORD", ""))
        config = load(role, values)
        assert config.port == container["ports"][0]["containerPort"]
        assert f"{config.node_id}.labs.svc" in config.allowed_hosts
        assert set(values) <= {variable.name for variable in VARIABLES} | {"LOG_PASSWORD"}
        address = parse(config.redis_url)
        if name == "url":
            assert isinstance(address, Cluster)
            assert vars(config).get("queue_url", own["queue-url"]) == own["queue-url"]
        else:
            assert isinstance(address, Sentinels)
            assert (address.name, config.admin_token) == ("lab14", "secret")
            assert vars(config).get("log_copies", 2) == 2
            assert str(address.known[2]) == "lab14-redis-2.lab14-redis:26379"
            assert "secret@" in address.url_of(address.known[0])
    assert sorted(set(roles)) == sorted(ROLES)


def test_a_degraded_node_stays_ready_and_is_not_restarted(fresh: Lab, rendered: dict[str, str]) -> None:
    urls = {"primary": fresh.primary_url, "replica": fresh.replica_urls["lab14-replica1"], "client": fresh.client_url}
    urls["worker"] = fresh.worker_url
    pods = {pod["spec"]["containers"][0]["name"]: pod for pod in templates(chart.manifests(rendered["url"]))}

    def succeeds(role: str, kind: str) -> bool:
        probe = pods[role]["spec"]["containers"][0][f"{kind}Probe"]
        timeout = urllib3.Timeout(total=probe["timeoutSeconds"])
        return POOL.request("GET", urls[role] + probe["httpGet"]["path"], timeout=timeout).status == 200

    assert all(succeeds(role, kind) for role in ROLES for kind in ("startup", "readiness", "liveness"))
    with frozen(fresh.pids[LOG_SERVER]):
        until(lambda: not any(succeeds(role, "startup") for role in ("primary", "replica")), 20)
        assert all(succeeds(role, "liveness") for role in ROLES)
        assert all(succeeds(role, "readiness") for role in ("primary", "replica", "client"))
    until(lambda: all(succeeds(role, "startup") for role in ROLES), 30)


@pytest.mark.parametrize("name", VALUES)
def test_whoever_is_called_admits_the_caller(rendered: dict[str, str], name: str) -> None:
    """Each connection needs an egress and an ingress rule, and the network policies deny all others."""
    policies = {
        found["metadata"]["labels"]["app.kubernetes.io/component"]: found["spec"]
        for found in chart.manifests(rendered[name]) if found["kind"] == "NetworkPolicy"
    }  # fmt: skip
    default = policies.pop("default")
    assert (default["policyTypes"], default.get("ingress")) == (["Ingress", "Egress"], None)

    def components(rules: list[dict[str, Any]], side: str) -> set[str]:
        peers = chain.from_iterable(rule.get(side, []) for rule in rules)
        chosen = (peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer)
        return {labels["app.kubernetes.io/component"] for labels in chosen}

    calls = {(caller, called) for caller, spec in policies.items() for called in components(spec["egress"], "to")}
    admitted = {
        (caller, called) for called, spec in policies.items() for caller in components(spec.get("ingress", []), "from")
    }
    assert calls == admitted
    assert ("client", "replica") in calls
    assert ("replica", "primary") not in calls


def test_helm_lint_finds_nothing() -> None:
    for name in VALUES:
        helm("lint", "--strict", str(CHART), "--values", str(EXPECTED / f"{name}.values.yaml"))
    chart.run("sh", "-n", str(CHART / "files/log.sh"))


@pytest.mark.needs("kube-score")
@pytest.mark.parametrize("name", VALUES)
def test_kube_score_finds_nothing(rendered: dict[str, str], name: str) -> None:
    chart.run("kube-score", "score", *LINT, "--exit-one-on-warning", "-o", "ci", "-", given=rendered[name])


@pytest.mark.needs("kubeconform", "go")
def test_the_manifests_fit_the_schemas_of_kubernetes(rendered: dict[str, str], tmp_path: Path) -> None:
    manifests = {name: chart.manifests(text) for name, text in rendered.items()}
    chart.write_schemas(tmp_path, {found["kind"] for found in chain(*manifests.values())})
    line = ["kubeconform", "-strict", "-summary", "-output", "json"]
    line += ["-schema-location", f"{tmp_path}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"]
    for name, text in rendered.items():
        found = json.loads(chart.run(*line, given=text).stdout)["summary"]
        assert found == {"valid": len(manifests[name]), "invalid": 0, "errors": 0, "skipped": 0}
    wrong = rendered["url"].replace("terminationGracePeriodSeconds: 15", "terminationGraceSeconds: 15", 1)
    done = chart.run(*line, given=wrong, check=False)
    assert (done.returncode, "terminationGraceSeconds" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "set one of log.url, log.existingSecret and log.sentinel.enabled; 0 are set"),
        (["log.url=redis://a", "log.existingSecret=b"], "; 2 are set"),
        (["log.url=http://a"], "at '/log/url': 'http://a' does not match pattern"),
        (["log.url=redis+cluster://a:6379"], "set queue.url or queue.existingSecret"),
        (["log.sentinel.enabled=true"], "set one of log.sentinel.password and log.sentinel.existingSecret"),
        (["log.sentinel.enabled=true", "log.sentinel.password=short"], "at '/log/sentinel/password': '"),
        (["log.sentinel.enabled=true", "log.sentinel.existingSecret=a", "log.copies=3"],
         "log.copies is 3, but 3 servers keep at most 2 copies besides the first"),
        (["log.sentinel.downAfterMs=1000"], "at '/log/sentinel/downAfterMs': minimum: got 1,000, want 2,000"),
        (["replicas.replica1.delayMs=soon"], "at '/replicas/replica1/delayMs': got string, want number"),
        (["replicas.replica1.delay=1"], "at '/replicas/replica1': additional properties 'delay' not allowed"),
        (["replicas.third.delayMs=1"], "invalid propertyName 'third'"),
        (["name=Lab-14"], "at '/name': 'Lab-14' does not match pattern '^[a-z][a-z0-9]{0,31}$'"),
        (["replica=2"], "additional properties 'replica' not allowed"),
    ],
)  # fmt: skip
def test_wrong_values_are_rejected_with_a_sentence(values: list[str], message: str) -> None:
    chosen = chain.from_iterable(("--set", value) for value in values)
    done = helm("template", "lab", str(CHART), *chosen, check=False)
    assert done.returncode == 1
    assert message in done.stderr


def test_the_schema_describes_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def undescribed(value: Any, known: dict[str, Any]) -> bool:
        if "properties" not in known:
            return "description" not in known
        assert known["additionalProperties"] is False
        assert set(known["properties"]) - {"global"} == set(value)
        return any(undescribed(value[key], known["properties"][key]) for key in value)

    assert not undescribed(values, schema)


def test_the_notes_name_the_commands(tmp_path: Path) -> None:
    values = str(EXPECTED / "sentinels.values.yaml")
    done = helm("install", "lab", str(CHART), "-n", "labs", "--dry-run=client", "-f", values, "--set", "log.copies=0")
    notes = done.stdout.partition("NOTES:")[2]
    assert "kubectl -n labs port-forward service/lab14-client 8003" in notes
    assert "log.copies is 0: a failover of the log can lose the newest acknowledged writes. 2 loses none" in notes
    assert "No admin token" not in notes


def test_the_commands_in_the_document_are_accepted() -> None:
    """``helm test`` needs pods that run; all other commands run up to where they need a cluster."""
    document = (
        (ROOT / "docs/deploy.md").read_text(encoding="utf-8").partition("## Kubernetes\n")[2].partition("\n## ")[0]
    )
    blocks = re.findall(r"^```bash\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    assert len(commands) == 7
    for command in commands:
        if command != "helm -n lab test lab":
            chart.run("bash", "-c", f"{command} --dry-run=client")
    assert re.findall(r"--set (replicas\S+?)`", document) == [
        "replicas.replica3.delayMs=4000",
        "replicas.replica2=null",
    ]
    chosen = ("--set=log.url=redis://a", "--set=replicas.replica3.delayMs=4000", "--set=replicas.replica2=null")
    text = helm("template", "lab", str(CHART), *chosen).stdout
    assert [f"name: lab14-replica{n}\n" in text for n in (1, 2, 3)] == [True, False, True]


def test_the_hook_of_helm_test_sees_a_write_reach_the_replicas(fresh: Lab, rendered: dict[str, str]) -> None:
    (pod,) = [found for found in chart.manifests(rendered["url"]) if found["kind"] == "Pod"]
    _, option, program, url, *replicas = pod["spec"]["containers"][0]["command"]
    line = [sys.executable, option, program, url.replace("http://lab14-client:8003", fresh.client_url)]
    assert json.loads(chart.run(*line, *replicas).stdout)["consistency_achieved"]
    done = chart.run(*line, *replicas, "lab14-replica3", check=False)
    assert (done.returncode, done.stderr) == (1, "not on lab14-replica3\n")
