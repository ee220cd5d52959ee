"""Rendering the Helm chart, and the schemas of Kubernetes to check it with.

``python -m tests.support.chart`` (``make chart``) writes the expected manifests again.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart"
EXPECTED = ROOT / "tests/integration/chart/expected"
VALUES = sorted(path.name.removesuffix(".values.yaml") for path in EXPECTED.glob("*.values.yaml"))
# What manifests contain as it is in a file.
SOURCES = [
    ROOT / "dashboards/prometheus/rules.yml",
    ROOT / "dashboards/grafana/dashboards/eventual-consistency.json",
    *(CHART / "files" / name for name in ("log.sh", "write_and_wait.py")),
]
_KUBERNETES = "k8s.io/kubernetes@v1.37.2"
_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
Schema = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """Reads ``=`` as text; YAML 1.1 has a type for it."""


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)


def run(*line: str, given: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command without the user's own settings of Helm and Kubernetes."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
    done = subprocess.run(line, input=given, capture_output=True, text=True, check=False, cwd=ROOT, env=clean)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def helm(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("helm", *arguments, check=check)


def render(name: str) -> str:
    """Return the manifests for a set of values."""
    values = EXPECTED / f"{name}.values.yaml"
    return helm("template", "lab", str(CHART), "--namespace", "labs", "--values", str(values)).stdout


def manifests(text: str) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(text) if found]


def shortened(text: str) -> str:
    """Return manifests without what is copied from ``SOURCES``, and without Helm's comments."""
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith("# Source:")]
    text = "\n".join(lines) + "\n"
    for source in SOURCES:
        copied = source.read_text(encoding="utf-8").strip().splitlines()
        for indent in (" " * 2, " " * 4, " " * 10):
            block = "".join(f"{indent}{line}".rstrip() + "\n" for line in copied)
            text = text.replace(block, f"{indent}# {source.relative_to(ROOT)}\n")
    return text


# -- schemas ----------------------------------------------------------------------------------------------------------


def write_schemas(directory: Path, kinds: set[str]) -> None:
    """Write strict JSON schemas of kinds of Kubernetes and the Prometheus operator, by the names kubeconform uses."""
    swagger = json.loads((_module(_KUBERNETES) / "api/openapi-spec/swagger.json").read_text(encoding="utf-8"))
    definitions = swagger["definitions"]
    for name, found in definitions.items():
        for kind in found.get("x-kubernetes-group-version-kind", []):
            if kind["kind"] in kinds:
                schema = {"definitions": _needed(name, definitions), "$ref": f"#/definitions/{name}"}
                _write(directory, kind["kind"], f"{kind['group']}/{kind['version']}", schema)
    for crd in custom_resources():
        names = yaml.load(crd.read_text(encoding="utf-8"), _Loader)["spec"]  # noqa: S506 - a safe loader
        for version in names["versions"]:
            _write(
                directory,
                names["names"]["kind"],
                f"{names['group']}/{version['name']}",
                version["schema"]["openAPIV3Schema"],
            )


def custom_resources() -> list[Path]:
    """Return the definitions of the operator's kinds that the chart uses."""
    directory = _module(_OPERATOR) / "example/prometheus-operator-crd"
    return [directory / f"monitoring.coreos.com_{kinds}.yaml" for kinds in ("prometheusrules", "servicemonitors")]


def _needed(name: str, definitions: dict[str, Schema]) -> dict[str, Schema]:
    """Return a definition and all that it refers to."""
    found: dict[str, Schema] = {}
    waiting = [name]
    while waiting:
        if (current := waiting.pop()) not in found:
            found[current] = definitions[current]
            waiting += (reference.rpartition("/")[2] for reference in _references(definitions[current]))
    return found


def _references(schema: Any) -> Iterator[str]:
    children = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    if isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str):
        yield reference
    for child in children:
        yield from _references(child)


def _strict(schema: Any) -> Any:
    """Return a schema that allows no unknown fields, and numbers where Kubernetes does."""
    if isinstance(schema, list):
        return [_strict(child) for child in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: _strict(child) for key, child in schema.items()}
    if (
        isinstance(found.get("properties"), dict)
        and "type" in found
        and "x-kubernetes-preserve-unknown-fields" not in found
    ):
        found.setdefault("additionalProperties", False)
    return found


def _write(directory: Path, kind: str, api_version: str, schema: Schema) -> None:
    group, _, version = api_version.rpartition("/")
    parts = [kind, *([group.partition(".")[0]] if group else []), version]
    (directory / f"{'-'.join(parts).lower()}.json").write_text(json.dumps(_strict(schema)), encoding="utf-8")


def _module(name: str) -> Path:
    """Return the directory of a Go module, downloaded on first use."""
    return Path(json.loads(run("go", "mod", "download", "-json", name).stdout)["Dir"])


if __name__ == "__main__":
    for each in VALUES:
        (EXPECTED / f"{each}.yaml").write_text(shortened(render(each)), encoding="utf-8")
