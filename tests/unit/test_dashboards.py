"""Checks of the dashboard's JSON."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "dashboards/grafana/dashboards/eventual-consistency.json").read_text(encoding="utf-8"))
RULES = (ROOT / "dashboards/prometheus/rules.yml").read_text(encoding="utf-8")
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_a_description_a_unit_and_a_job_filter(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    for expression in expressions(panel):
        selectors = re.findall(r"(?:ec_|:ec_)\w+(?::\w+)?(?:\{([^}]*)\})?", expression.replace("0 * ", ""))
        assert any('job=~"$job"' in selector for selector in selectors), expression


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


def test_queries_use_only_exported_or_recorded_metrics() -> None:
    exported = set(re.findall(r"`(ec_[a-z_]+)`", (ROOT / "docs/metrics.md").read_text(encoding="utf-8")))
    recorded = set(re.findall(r"record: (\S+)", RULES))
    queries = [expression for panel in PANELS for expression in expressions(panel)]
    queries += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]] + [RULES]
    for query in queries:
        named = set(re.findall(r"(?<![\w:])(?:\w+:)?ec_[\w:]+", query)) - recorded
        assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= exported, query


def test_the_dashboard_uses_the_provisioned_data_source() -> None:
    provisioned = (ROOT / "dashboards/grafana/provisioning/datasources/lab.yaml").read_text(encoding="utf-8")
    (variable,) = [found for found in DASHBOARD["templating"]["list"] if found["type"] == "datasource"]
    assert f"uid: {variable['current']['value']}" in provisioned
    assert DASHBOARD["title"] == "Eventual Consistency Dashboard"
