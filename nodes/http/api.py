"""Endpoints: what they take, checked before the view runs, and how it is described in ``/openapi.json``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from importlib.metadata import version
from types import MappingProxyType
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from flask import Flask, Response, request
from gunicorn.http.errors import ParseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from broker.position import PATTERN, Position
from nodes.http import guard, strict_json
from nodes.http.problem import Problem

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

_PROBLEM_ANSWER = {
    "description": "Problem details (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    "headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 0}}},
}
_POSITION_SCHEMA = {"type": "string", "pattern": f"^{PATTERN}$"}
_POSITION_HEADERS = {
    "Lab-Position": {"description": "the position that the answer reflects", "schema": _POSITION_SCHEMA},
    "Lab-Source": {"description": "the node that answered", "schema": {"type": "string"}},
}
_SEGMENT = {"type": "string", "minLength": 1}


class Body(BaseModel):
    """A request body: JSON types as they are, and no fields but the named ones."""

    model_config = ConfigDict(strict=True, extra="forbid")


class OpenBody(Body):
    """A body that is passed on to another node, which checks the other fields."""

    model_config = ConfigDict(strict=True, extra="allow")

    @model_validator(mode="after")
    def _can_be_sent(self) -> OpenBody:
        strict_json.dumps(self.model_dump())
        return self


class Query(BaseModel):
    """Query parameters: texts that are converted, and no parameters but the named ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def checked_key(key: str) -> str:
    """Check that a key can be stored, and asked for by its path. Raises ``ValueError``."""
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError("a key is valid Unicode") from None
    if not 1 <= size <= KEY_BYTES_MAX:
        raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8, not {size}")
    if key in {".", ".."}:
        raise ValueError(f"{key!r} cannot be a key: browsers and others take it out of a path, however it is written")
    return key


Key = Annotated[
    str,
    AfterValidator(checked_key),
    Field(
        description=f"at most {KEY_BYTES_MAX} bytes of UTF-8",
        json_schema_extra={"minLength": 1, "maxLength": KEY_BYTES_MAX, "not": {"enum": [".", ".."]}},
    ),
]
TimeoutMs = Annotated[int, Field(ge=0, le=TIMEOUT_MS_MAX)]


class _KeyConverter(BaseConverter):
    """A key in a path: everything up to the end, slashes and line breaks included."""

    regex = r"[\s\S]+"
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
        app.before_request(_require_utf_8)
        app.after_request(_drain)
        self.route("GET", "/openapi.json", admin=False, answer=dict[str, Any])(self.describe)

    def route(
        self,
        method: str,
        path: str,
        *,
        admin: bool,
        answer: Any,
        body: type[BaseModel] | None = None,
        status: int = 200,
        media: str = "application/json",
        also: Mapping[int, Any] = MappingProxyType({}),
        reads: Mapping[str, Any] = MappingProxyType({}),
        query: type[Query] | None = None,
        headers: Mapping[str, Any] = MappingProxyType({}),
    ) -> Callable[[View], View]:
        """Register a view. Its docstring is the description.

        ``answer`` is the type of what it returns, with ``status`` and ``media``; ``also`` has the types of answers with
        other statuses, and ``Problem`` stands for problem details. ``reads``: of what type the body may be, by media
        type, if the view reads it by itself. ``headers``: the types of those that it reads. ``admin``: whether it needs
        ``LAB_ADMIN_TOKEN``, when that is set.
        """

        def register(view: View) -> View:
            defaults = None if query is None else _without_parameters(query)

            def endpoint(**arguments: Any) -> Response:
                if query is not None:
                    as_it_is = defaults is not None and not request.query_string
                    arguments["query"] = (
                        defaults if as_it_is else parsed(query, _parameters(), 400, "invalid-parameter")
                    )
                elif request.query_string:
                    detail = f"This endpoint takes no parameters, not {', '.join(_parameters())[:100]}."
                    raise _invalid_parameter(detail)
                if body is not None:
                    arguments["body"] = parsed(body, as_object(raw_body(BODY_BYTES_MAX)), 422, "invalid-field")
                result = view(**arguments)
                return result if isinstance(result, Response) else self.reply(result)

            name = f"{method} {path}"
            self._app.add_url_rule(path, name, endpoint, methods=[method])
            guard.declare(self._app, name, admin=admin)
            kinds = reads if body is None else {"application/json": body}
            operation = self._describe(
                method,
                path,
                view.__doc__ or "",
                parameters=[
                    *([] if query is None else self._query_parameters(query)),
                    *(self._parameter(header, "header", self._schema(kind)) for header, kind in headers.items()),
                ],
                kinds=kinds,
                answers={status: answer, **also},
                media=media,
            )
            if admin:
                operation["security"] = guard.security(self._app)
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
        self,
        method: str,
        path: str,
        doc: str,
        *,
        parameters: list[dict[str, Any]],
        kinds: Mapping[str, Any],
        answers: Mapping[int, Any],
        media: str,
    ) -> dict[str, Any]:
        name = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)
        lines = doc.strip().splitlines()
        operation: dict[str, Any] = {
            "operationId": f"{method} {name}",
            "summary": lines[0] if lines else name,
            "description": " ".join(line.strip() for line in lines),
            "parameters": [
                *(self._parameter(found, "path", _SEGMENT, required=True) for found in re.findall(r"{(\w+)}", name)),
                *parameters,
            ],
            "responses": {
                **{str(status): self._answer(status, kind, media) for status, kind in answers.items()},
                "default": _PROBLEM_ANSWER,
            },
        }
        if kinds:
            content = {kind: {"schema": self._schema(model)} for kind, model in kinds.items()}
            operation["requestBody"] = {"required": True, "content": content}
        self._paths.setdefault(name, {})[method.lower()] = operation
        return operation

    def _query_parameters(self, query: type[Query]) -> Iterator[dict[str, Any]]:
        schema = self._schema(query)
        for name, part in schema["properties"].items():
            # One that may be null is left out: a query has no null.
            kinds = [kind for kind in part.pop("anyOf", []) if kind != {"type": "null"}]
            part.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})
            if part.get("default", ...) is None:
                del part["default"]
            yield self._parameter(name, "query", part, required=name in schema.get("required", []))

    def _parameter(self, name: str, place: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
        return {"name": name, "in": place, "required": required, "schema": schema}

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


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object, given as bytes, or as what ``strict_json.items`` has read. Raises ``Problem``."""
    if isinstance(value, bytes):
        try:
            value = strict_json.loads(value)
        except ValueError as error:
            raise not_json(error) from None
    if isinstance(value, ValueError):
        raise not_json(value)
    if not isinstance(value, dict):
        raise Problem(400, "not-an-object", "Not an object", f"This is a JSON {_kind(value)}, not an object.")
    return value


def not_json(error: ValueError) -> Problem:
    """What to answer to what is not JSON, or none that the lab takes."""
    what = "This JSON is refused" if isinstance(error, strict_json.Refused) else "This is not JSON"
    return Problem(400, "not-json", "Not JSON", f"{what}: {error}.")


def raw_body(bytes_max: int) -> bytes:
    """The request's body, read to its end within bounds. Raises ``Problem``."""
    try:
        raw = request.stream.read(bytes_max + 1)
        if len(raw) <= bytes_max:
            return _whole(raw)
    except (ParseException, OSError) as error:  # a chunk that is none, or a sender that is gone
        raise _incomplete(str(error)) from None
    raise Problem(413, "body-too-large", "Body too large", f"A body has at most {bytes_max} bytes.")


def _drain(answer: Response) -> Response:
    """Read more of a refused body: a client still sending when the connection is closed would never see the answer."""
    if answer.status_code >= 400:
        with suppress(ParseException, OSError, HTTPException):
            for _ in range(_DRAINED_CHUNKS):
                if not request.stream.read(BODY_BYTES_MAX):
                    break
    return answer


def _whole(raw: bytes) -> bytes:
    length = request.content_length
    if length is not None and len(raw) < length:
        raise _incomplete(f"{len(raw)} bytes of {length}")
    return raw


def _incomplete(reason: str) -> Problem:
    return Problem(400, "incomplete-body", "Incomplete body", f"The body did not arrive whole: {reason[:200]}.")


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


def _require_utf_8() -> None:
    """Refuse a path that is not UTF-8: the bytes that are none would be read as those of another key."""
    path = request.environ["PATH_INFO"]
    try:
        path.isascii() or path.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "not-utf-8", "Not UTF-8", "The path is not percent-encoded UTF-8.") from None


def _parameters() -> dict[str, str]:
    """The query parameters by name. Raises ``Problem`` 400."""
    try:
        pairs = parse_qsl(request.query_string.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise _invalid_parameter("The parameters are not percent-encoded UTF-8.") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _invalid_parameter(f"A parameter comes twice: {', '.join(name for name, _ in pairs)[:100]}.")
    return found


def _invalid_parameter(detail: str) -> Problem:
    return Problem(400, "invalid-parameter", "Invalid parameter", detail)
