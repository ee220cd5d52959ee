"""Endpoints: what they take, checked before the view runs, and how it is described in ``/openapi.json``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from flask import Flask, Response, request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from werkzeug.routing import BaseConverter

from broker.position import Position
from nodes import guard, strict_json
from nodes.problem import Problem

BODY_BYTES_MAX = 2**20
_DRAINED_CHUNKS = 16
KEY_BYTES_MAX = 512
TIMEOUT_MS_MAX = 600_000

Model = TypeVar("Model", bound=BaseModel)
View = TypeVar("View", bound=Callable[..., Any])
_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "outcome": {"enum": ["not_applied", "unknown"]},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


class Body(BaseModel):
    """A request body: JSON types as they are, and no fields but the named ones."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Query(BaseModel):
    """Query parameters: texts that are converted, and no parameters but the named ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def checked_key(key: str) -> str:
    """Check a key's size. Raises ``ValueError``."""
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError("a key is valid Unicode") from None
    if not 1 <= size <= KEY_BYTES_MAX:
        raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8, not {size}")
    return key


Key = Annotated[str, AfterValidator(checked_key)]
TimeoutMs = Annotated[int, Field(ge=0, le=TIMEOUT_MS_MAX)]


class _KeyConverter(BaseConverter):
    """A key in a path: everything up to the end, slashes included."""

    regex = ".+"
    part_isolating = False


class Api:
    """The endpoints of one app. Views get ``body`` and ``query`` as validated models and return a mapping."""

    def __init__(self, app: Flask, node_id: str, title: str) -> None:
        self._app = app
        self._node_id = node_id
        self._title = title
        self._paths: dict[str, dict[str, Any]] = {}
        self._schemas: dict[str, Any] = {"Problem": _PROBLEM_SCHEMA}
        app.url_map.converters["key"] = _KeyConverter
        app.url_map.merge_slashes = False
        self.route("GET", "/openapi.json", admin=False, answer=dict[str, Any])(self.describe)

    def route(
        self,
        method: str,
        path: str,
        *,
        admin: bool,
        answer: Any,
        body: type[BaseModel] | None = None,
        reads: Mapping[str, Any] = MappingProxyType({}),
        query: type[Query] | None = None,
    ) -> Callable[[View], View]:
        """Register a view. ``answer`` is the type of what it returns; its docstring is the description.

        ``admin``: whether it needs ``LAB_ADMIN_TOKEN``, when that is set.

        A view that reads the request's body by itself says of what type it may be, by media type.
        """

        def register(view: View) -> View:
            defaults = None if query is None else _without_parameters(query)

            def endpoint(**arguments: Any) -> Response:
                if query is not None:
                    as_it_is = defaults is not None and not request.query_string
                    arguments["query"] = (
                        defaults if as_it_is else parsed(query, request.args.to_dict(), 400, "invalid-parameter")
                    )
                elif request.args:
                    raise _unknown_parameters(list(request.args))
                if body is not None:
                    arguments["body"] = parsed(body, as_object(raw_body(BODY_BYTES_MAX)), 422, "invalid-field")
                result = view(**arguments)
                return result if isinstance(result, Response) else self.reply(result)

            name = f"{method} {path}"
            self._app.add_url_rule(path, name, endpoint, methods=[method])
            guard.declare(self._app, name, admin=admin)
            kinds = reads if body is None else {"application/json": body}
            operation = self._describe(method, path, view.__doc__ or "", answer=answer, kinds=kinds, query=query)
            if admin:
                operation["security"] = [{"admin": []}]
            return view

        return register

    def reply(
        self, answer: Mapping[str, Any] | list[Any], status: int = 200, position: Position | str | None = None
    ) -> Response:
        """An answer; one that reflects data names its ``position`` and this node in its headers."""
        headers = {"Content-Type": "application/json"}
        if position is None and isinstance(answer, Mapping):
            position = answer.get("position")
        if position:
            headers |= {"Lab-Position": str(position), "Lab-Source": self._node_id}
        return Response(strict_json.dumps(answer) + "\n", status, headers)

    def describe(self) -> dict[str, Any]:
        """The description of this node's endpoints, as OpenAPI 3.1."""
        return {
            "openapi": "3.1.0",
            "info": {"title": self._title, "version": version("eventual-consistency-lab")},
            "paths": self._paths,
            "components": {
                "schemas": self._schemas,
                "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _describe(
        self, method: str, path: str, doc: str, *, answer: Any, kinds: Mapping[str, Any], query: type[Query] | None
    ) -> dict[str, Any]:
        name = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)
        parameters: list[dict[str, Any]] = [
            {"name": found, "in": "path", "required": True, "schema": {"type": "string"}}
            for found in re.findall(r"{(\w+)}", name)
        ]
        if query is not None:
            schema = self._schema(query)
            required = schema.get("required", [])
            parameters += [
                {"name": found, "in": "query", "required": found in required, "schema": part}
                for found, part in schema["properties"].items()
            ]
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        lines = doc.strip().splitlines()
        operation: dict[str, Any] = {
            "operationId": f"{method} {name}",
            "summary": lines[0] if lines else name,
            "description": " ".join(line.strip() for line in lines),
            "parameters": parameters,
            "responses": {
                "200": {"description": "Done", "content": {"application/json": {"schema": self._schema(answer)}}},
                "default": {"description": "Problem details (RFC 9457)", "content": problem},
            },
        }
        if kinds:
            content = {name: {"schema": self._schema(kind)} for name, kind in kinds.items()}
            operation["requestBody"] = {"required": True, "content": content}
        self._paths.setdefault(name, {})[method.lower()] = operation
        return operation

    def _schema(self, kind: Any) -> dict[str, Any]:
        schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
        self._schemas.update(schema.pop("$defs", {}))
        return schema


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object, given as bytes or as a value that was read already. Raises ``Problem``."""
    if isinstance(value, bytes):
        try:
            value = strict_json.loads(value)
        except ValueError as error:
            raise not_json(error) from None
    if not isinstance(value, dict):
        raise Problem(400, "not-an-object", "Not an object", f"This is a JSON {_kind(value)}, not an object.")
    return value


def not_json(error: ValueError) -> Problem:
    """What to answer to what is not JSON."""
    return Problem(400, "not-json", "Not JSON", f"This is not JSON: {error}.")


def raw_body(bytes_max: int) -> bytes:
    """The request's body, read to its end within bounds. Raises ``Problem``.

    One that is too large is refused only after more of it was read: a client that is still sending when the connection
    is closed would never see the answer.
    """
    raw = request.stream.read(bytes_max + 1)
    if len(raw) <= bytes_max:
        return raw
    for _ in range(_DRAINED_CHUNKS):
        if not request.stream.read(BODY_BYTES_MAX):
            break
    raise Problem(413, "body-too-large", "Body too large", f"A body has at most {bytes_max} bytes.")


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def parsed(model: type[Model], values: dict[str, Any], status: int, slug: str) -> Model:
    """The values as a model. Raises ``Problem`` of this status, with a sentence for each field."""
    try:
        return model.model_validate(values)
    except ValidationError as failure:
        tags: int = getattr(model, "TAGS", 0)
        errors = [
            {"field": _field(error, tags), "message": error["msg"].removeprefix("Value error, ")}
            for error in failure.errors(include_url=False, include_input=False)
        ]
    detail = "; ".join(
        f"{error['field']}: {error['message']}" if error["field"] else error["message"] for error in errors
    )
    title = "Invalid parameter" if status == 400 else "Invalid field"
    raise Problem(status, slug, title, f"{detail}.", errors=errors)


def _field(error: Any, tags: int) -> str:
    """The field that an error is about; one of choosing a kind is about what the kind is chosen by."""
    chosen_by = str(error.get("ctx", {}).get("discriminator", "")).strip("'")
    return ".".join([*map(str, error["loc"][tags:]), *filter(None, [chosen_by])])


def _without_parameters(model: type[Query]) -> Query | None:
    """What a request without any parameters asks for, made once; ``None`` where some are required."""
    try:
        return model()
    except ValidationError:
        return None


def _unknown_parameters(names: list[str]) -> Problem:
    detail = f"This endpoint takes no parameters, not {', '.join(names)[:100]}."
    return Problem(400, "invalid-parameter", "Invalid parameter", detail)
