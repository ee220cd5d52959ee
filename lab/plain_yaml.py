"""YAML limited to JSON's types: YAML 1.1's dates, base-60 numbers and words for booleans ("no") are strings."""

import math
import re
from typing import Any

import yaml

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}


def load(text: str) -> Any:
    """Read one document. Raises ``ValueError`` with a message that names the line."""
    try:
        node = yaml.compose(text, _Loader)
        return None if node is None else _value(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(line + " ".join(filter(None, [error.context, error.problem]))) from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deep") from None


class _Loader(yaml.BaseLoader):
    """Rejects tags, and aliases, which let a small file expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        what = "aliases" if isinstance(event, yaml.AliasEvent) else "tags"
        if what == "aliases" or getattr(event, "tag", None) not in {None, "!"}:
            raise yaml.MarkedYAMLError(problem=f"{what} are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _value(node: Any) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(child) for child in node.value]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node)
    found: dict[str, Any] = {}
    for key, child in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a name in a mapping is not a string", problem_mark=key.start_mark)
        if key.value in found:
            raise yaml.MarkedYAMLError(problem="a mapping has the same name twice", problem_mark=key.start_mark)
        found[key.value] = _value(child)
    return found


def _scalar(node: Any) -> Any:
    text = str(node.value)
    if node.style is None and text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if node.style is not None or not _NUMBER.fullmatch(text):  # quoted, a block, or plain text
        return text
    try:
        return int(text)
    except ValueError:  # a fraction, or more digits than Python converts
        number = float(text)
    if not math.isfinite(number):
        raise yaml.MarkedYAMLError(problem=f"{text[:40]} is too large a number", problem_mark=node.start_mark)
    return number
