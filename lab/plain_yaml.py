"""YAML as far as it says what JSON can: mappings, sequences, texts, numbers, true, false, null; no aliases, no tags.

An alias lets a small file stand for gigabytes. What YAML 1.1 reads as a date, as base 60 or as a truth value ("no") is
a text here.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d+", re.ASCII)
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}
_DIGITS_MAX = 400


def load(text: str) -> Any:
    """Read one document. Raises ``ValueError`` with a sentence that names the line."""
    try:
        node = yaml.compose(text, _Loader)
        return None if node is None else _value(node)
    except yaml.MarkedYAMLError as error:
        problem = " ".join(filter(None, [error.context, error.problem]))
        raise ValueError(f"{_line(error.problem_mark or error.context_mark)}{problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deep") from None


class _Loader(yaml.BaseLoader):
    """Reads nodes that are what they look like, and none of them twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """See ``yaml``."""
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
        if not isinstance(key, yaml.ScalarNode) or key.value in found:
            what = "twice the same name" if isinstance(key, yaml.ScalarNode) else "a name that is not a text"
            raise yaml.MarkedYAMLError(problem=f"a mapping has {what}", problem_mark=key.start_mark)
        found[key.value] = _value(child)
    return found


def _scalar(node: Any) -> Any:
    text = str(node.value)
    if node.style is not None:  # quoted, or a block
        return text
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if not _NUMBER.fullmatch(text):
        return text
    number = int(text) if len(text) <= _DIGITS_MAX and _WHOLE.fullmatch(text) else float(text)
    if not math.isfinite(number):
        raise yaml.MarkedYAMLError(problem=f"{text[:40]} is too large a number", problem_mark=node.start_mark)
    return number


def _line(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}: "
