"""The Helm chart on a real API server, without nodes: it checks, defaults and stores what it is sent."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from lab.local.layout import free_port
from tests.support import chart
from tests.support.chart import CHART, EXPECTED, VALUES
from tests.support.until import until

pytestmark = [pytest.mark.needs("kube-apiserver", "helm", "go"), pytest.mark.timeout(180)]
Run = Callable[..., str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """An API server with its etcd; the options by which kubectl and helm find it."""
    home = tmp_path_factory.mktemp("cluster")
    key = home / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (home / "tokens").write_text("token,admin,admin,system:masters\n")
    store, peer, port = free_port(), free_port(), free_port()
    stored = [f"--listen-client-urls=http://127.0.0.1:{store}", f"--advertise-client-urls=http://127.0.0.1:{store}"]
    stored += [f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--data-dir={home / 'etcd'}"]
    served = [
        f"--etcd-servers=http://127.0.0.1:{store}",
        f"--secure-port={port}",
        f"--cert-dir={home / 'certificates'}",
    ]
    served += ["--bind-address=127.0.0.1", "--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC"]
    served += [f"--token-auth-file={home / 'tokens'}", "--disable-admission-plugins=ServiceAccount"]
    served += ["--service-account-issuer=https://localhost", f"--service-account-key-file={key}"]
    served += [f"--service-account-signing-key-file={key}"]
    with (home / "output.log").open("wb") as output:
        started = [
            subprocess.Popen(line, stdout=output, stderr=output)
            for line in (["etcd", *stored], ["kube-apiserver", *served])
        ]
        try:
            config = home / "config"
            options = [f"--server=https://127.0.0.1:{port}", "--insecure-skip-tls-verify", "--token=token"]
            ready = ["kubectl", *options, "get", "--raw", "/readyz"]
            until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, 120)
            settings = ["set-cluster", "lab", *options[:2]], ["set-credentials", "lab", options[2]]
            for setting in (*settings, ["set-context", "lab", "--cluster=lab", "--user=lab"], ["use-context", "lab"]):
                subprocess.run(
                    ["kubectl", f"--kubeconfig={config}", "config", *setting], check=True, capture_output=True
                )
            yield [f"--kubeconfig={config}"]
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def kubectl(cluster: list[str]) -> Run:
    """Call kubectl on that server, with the operator's kinds and a namespace that admits only confined pods."""

    def run(*arguments: str, given: str = "") -> str:
        done = chart.run("kubectl", *cluster, *arguments, given=given)
        assert not done.stderr  # a warning
        return done.stdout

    for kinds in chart.custom_resources():
        run("create", "-f", str(kinds))
    run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    run("create", "namespace", "labs")
    modes = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    run("label", "namespace", "labs", *modes)
    return run


@pytest.mark.parametrize("name", VALUES)
def test_the_server_accepts_every_manifest_without_a_warning(kubectl: Run, name: str) -> None:
    """The namespace's ``restricted`` policy would warn about a pod template that it does not admit."""
    text = chart.render(name)
    output = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", given=text)
    assert output.count("serverside-applied (server dry run)") == len(chart.manifests(text))


def test_a_release_is_installed_and_changed(cluster: list[str], kubectl: Run) -> None:
    """A change of replicas, image and settings touches no field that a StatefulSet cannot change."""
    values = [str(CHART), "--namespace", "labs", "--values", str(EXPECTED / "sentinels.values.yaml"), *cluster]
    chart.helm("install", "lab", *values)
    changed = [
        "replicas.replica1=null",
        "replicas.replica9.delayMs=1",
        "image.tag=v2",
        "log.copies=1",
        "adminToken.existingSecret=b",
    ]
    chart.helm("upgrade", "lab", *values, *(f"--set={change}" for change in changed))
    found = kubectl("get", "statefulsets", "-n", "labs", "-o", "name").split()
    assert found == [f"statefulset.apps/lab14-{name}" for name in ("redis", "replica2", "replica3", "replica9")]
    chart.helm("uninstall", "lab", "-n", "labs", *cluster)
    assert "lab14-client" in kubectl("get", "persistentvolumeclaims", "-n", "labs")
