"""The description of a node's endpoints, as OpenAPI 3.1."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from broker.position import PATTERN
from nodes.http.problem import Outcome, Problem

_TEXT = {"type": "string"}
_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        **dict.fromkeys(("type", "title", "detail"), _TEXT),
        "status": {"type": "integer"},
        "outcome": {"enum": get_args(Outcome)},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
_PROBLEM_ANSWER = {
    "description": "Problem details (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    "headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 0}}},
}
_POSITION_SCHEMA = {"type": "string", "pattern": f"^{PATTERN}$"}
_POSITION_HEADERS = {
    "Lab-Position": {"description": "the position that the answer reflects", "schema": _POSITION_SCHEMA},
    "Lab-Source": {"description": "the node that responded", "schema": _TEXT},
}
_SEGMENT = {"type": "string", "minLength": 1}
Security = list[dict[str, list[str]]]
_SECURITY_SCHEMES = {"admin": {"type": "http", "scheme": "bearer"}}


@dataclass(frozen=True)
class Answer:
    """An answer with more than a type. ``also``: types by other statuses; ``Problem`` stands for problem details."""

    kind: Any
    status: int = 200
    media: str = "application/json"
    also: Mapping[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One endpoint. ``kinds``: body types by media type; ``headers``: types of the headers it reads."""

    method: str
    path: str
    doc: str
    answer: Answer
    kinds: Mapping[str, Any]
    query: type[BaseModel] | None
    headers: Mapping[str, Any]


class Description:
    """Written when it is first requested: the schemas take as long as the rest of a node's start."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._operations: list[tuple[Operation, Security | None]] = []
        self._schemas: dict[str, Any] = {"Problem": _PROBLEM_SCHEMA}

    def add(self, operation: Operation, security: Security | None) -> None:
        """Add an endpoint; ``security``: its authorization alternatives, ``None`` if it needs none."""
        self._operations.append((operation, security))

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole description, as JSON."""
        paths: dict[str, dict[str, Any]] = {}
        for operation, security in self._operations:
            name, found = self._described(operation, security)
            paths.setdefault(name, {})[operation.method.lower()] = found
        return {
            "openapi": "3.1.0",
            "info": {"title": self._title, "version": version("eventual-consistency-lab")},
            "paths": paths,
            "components": {"schemas": self._schemas, "securitySchemes": _SECURITY_SCHEMES},
        }

    def _described(self, operation: Operation, security: Security | None) -> tuple[str, dict[str, Any]]:
        """Return the path of an endpoint, and its description."""
        name = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", operation.path)
        lines = operation.doc.strip().splitlines()
        answer = operation.answer
        kinds = {answer.status: answer.kind, **answer.also}
        found: dict[str, Any] = {
            "operationId": f"{operation.method} {name}",
            "summary": lines[0] if lines else name,
            "description": " ".join(line.strip() for line in lines),
            "parameters": [
                *(_parameter(part, "path", _SEGMENT, required=True) for part in re.findall(r"{(\w+)}", name)),
                *([] if operation.query is None else self._query(operation.query)),
                *(_parameter(header, "header", self._schema(kind)) for header, kind in operation.headers.items()),
            ],
            "responses": {str(status): self._answer(status, kind, answer.media) for status, kind in kinds.items()},
        }
        found["responses"]["default"] = _PROBLEM_ANSWER
        if operation.kinds:
            content = {media: {"schema": self._schema(kind)} for media, kind in operation.kinds.items()}
            found["requestBody"] = {"required": True, "content": content}
        if security is not None:
            found["security"] = security
        return name, found

    def _query(self, query: type[BaseModel]) -> Iterator[dict[str, Any]]:
        schema = self._schema(query)
        for name, part in schema["properties"].items():
            # A nullable parameter is optional: a query has no null.
            kinds = [kind for kind in part.pop("anyOf", []) if kind != {"type": "null"}]
            part.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})
            if part.get("default", ...) is None:
                del part["default"]
            yield _parameter(name, "query", part, required=name in schema.get("required", []))

    def _answer(self, status: int, kind: Any, media: str) -> dict[str, Any]:
        if kind is Problem:
            return _PROBLEM_ANSWER
        schema = self._schema(kind)
        found: dict[str, Any] = {"description": HTTPStatus(status).phrase, "content": {media: {"schema": schema}}}
        if "position" in schema.get("properties", {}):
            found["headers"] = _POSITION_HEADERS
        return found

    def _schema(self, kind: Any) -> dict[str, Any]:
        schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
        self._schemas.update(schema.pop("$defs", {}))
        return schema


def _parameter(name: str, place: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}
