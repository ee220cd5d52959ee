"""An experiment as one self-contained page: its settings, its results, and every measurement."""

import json
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment
from markupsafe import Markup

from lab.errors import LabError
from lab.report.charts import charts
from lab.report.tables import rows_of


def page(experiment: dict[str, Any]) -> str:
    """The page of an experiment with its raw measurements. Raises ``LabError`` if there is nothing to show yet."""
    result = experiment["result"]
    if experiment["state"] != "finished" or result is None:
        raise LabError(f"experiment {experiment['id']} is {experiment['state']}: only a finished one has a report")
    kind, spec = experiment["kind"], experiment["spec"]
    source = files("lab.report").joinpath("report.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True).from_string(source)
    return template.render(
        experiment=experiment,
        charts=[(title, Markup(picture)) for title, picture in charts(kind, spec, result)],  # noqa: S704 - our own SVG
        tables=rows_of(kind, spec, result),
        specification=_yaml(spec),
        settings=_yaml(result.get("settings")),
        versions=result.get("versions"),
        data=_in_script(experiment),
    )


def _yaml(found: Any) -> str:
    return "" if found is None else yaml.safe_dump(found, sort_keys=False, allow_unicode=True)


def _in_script(found: Any) -> Markup:
    """JSON that cannot end the script element around it."""
    text = json.dumps(found, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - escaped just now
