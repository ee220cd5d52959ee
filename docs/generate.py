"""Write the generated parts of the documents: ``make docs``. A test compares them with the code."""

import json
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from lab.probe.exporter import PROBE
from nodes.runtime.config import ROLES, VARIABLES
from nodes.runtime.metrics import METRICS

DOCS = Path(__file__).parent
CHART = DOCS.parent / "deploy/chart"
DECLARING = ("nodes.primary.metrics", "nodes.replica.metrics", "nodes.client.metrics", "nodes.worker.predicted")


def metrics() -> str:
    """The table of all metrics, in the order of the roles that export them."""
    for module in DECLARING:
        import_module(module)
    order = (*ROLES, PROBE)
    found = sorted(METRICS.values(), key=lambda metric: [order.index(role) for role in metric.roles])
    rows = (
        (f"`{metric.name}`", metric.kind.__name__.lower(), ", ".join(f"`{label}`" for label in metric.labels),
         ", ".join(metric.roles), metric.meaning)
        for metric in found
    )  # fmt: skip
    return _table(("metric", "type", "labels", "from", "meaning"), rows)


def configuration() -> str:
    """The table of all environment variables."""
    rows = (
        (f"`{variable.name}`", "all" if variable.roles == ROLES else ", ".join(variable.roles),
         variable.shown or (f"`{variable.default}`" if variable.default else "none"), variable.meaning)
        for variable in VARIABLES
    )  # fmt: skip
    return _table(("variable", "read by", "default", "meaning"), rows)


def chart_values() -> str:
    """The table of all values of the Helm chart."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return _table(("value", "default", "meaning"), _described(values, schema, ""))


def _described(values: dict[str, Any], schema: dict[str, Any], path: str) -> Iterable[tuple[str, str, str]]:
    for name, value in values.items():
        known = schema["properties"][name]
        if "properties" in known:
            yield from _described(value, known, f"{path}{name}.")
        else:
            shown = (
                "" if value in ("", [], {}) else "see `values.yaml`" if "$ref" in known else f"`{json.dumps(value)}`"
            )
            yield f"`{path}{name}`", shown, known["description"]


GENERATED = {"metrics": metrics, "configuration": configuration, "deploy": chart_values}


def rewritten(name: str) -> str:
    """The document of this name, with its generated part brought up to date."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda found: found[1] + GENERATED[name]() + found[2], text)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (names, ["---"] * len(names), *rows))


if __name__ == "__main__":
    for name in GENERATED:
        (DOCS / f"{name}.md").write_text(rewritten(name), encoding="utf-8")
