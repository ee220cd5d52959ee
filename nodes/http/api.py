"""Endpoints: their parameters and bodies, checked before the view runs and described in ``/openapi.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from flask import Flask, Response, request
from gunicorn.http.errors import ParseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from nodes.http import guard, strict_json
from nodes.http.openapi import Answer, Description, Operation
from nodes.http.problem import Problem

BODY_BYTES_MAX = 2**20
KEY_BYTES_MAX = 512
TIMEOUT_MS_MAX = 600_000
_DRAINED_CHUNKS = 16  # of a refused body, each of BODY_BYTES_MAX

Model = TypeVar("Model", bound=BaseModel)
View = TypeVar("View", bound=Callable[..., Any])


class Body(BaseModel):
    """A request body: JSON types without conversion, and no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid")


class OpenBody(Body):
    """A body that is forwarded to another node, which checks the other fields."""

    model_config = ConfigDict(strict=True, extra="allow")

    @model_validator(mode="after")
    def _can_be_sent(self) -> OpenBody:
        strict_json.dumps(self.model_dump())
        return self


class Query(BaseModel):
    """Query parameters: converted from text, and no unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _checked_key(key: str) -> str:
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError("a key must be valid Unicode") from None
    if not 1 <= size <= KEY_BYTES_MAX:
        raise ValueError(f"a key must have 1 to {KEY_BYTES_MAX} bytes of UTF-8, not {size}")
    if key in {".", ".."}:
        raise ValueError(f"{key!r} cannot be a key: HTTP clients remove it from a path, however it is written")
    return key


Key = Annotated[
    str,
    AfterValidator(_checked_key),
    Field(
        description=f"at most {KEY_BYTES_MAX} bytes of UTF-8",
        json_schema_extra={"minLength": 1, "maxLength": KEY_BYTES_MAX, "not": {"enum": [".", ".."]}},
    ),
]
TimeoutMs = Annotated[int, Field(ge=0, le=TIMEOUT_MS_MAX)]


class _KeyConverter(BaseConverter):
    regex = r"[\s\S]+"  # the rest of the path, slashes and line breaks included
    part_isolating = False


class Api:
    """The endpoints of one app. Views receive ``body`` and ``query`` as validated models and return a mapping."""

    def __init__(self, app: Flask, node_id: str, title: str) -> None:
        self._app, self._node_id, self._description = app, node_id, Description(title)
        app.url_map.converters["key"] = _KeyConverter
        app.url_map.merge_slashes = False
        app.before_request(_require_utf_8)
        app.after_request(_drain)

        @self.route("GET", "/openapi.json", admin=False, answer=dict[str, Any])
        def describe() -> dict[str, Any]:
            """The description of this node's endpoints, as OpenAPI 3.1."""
            return self._description.document

    def route(
        self,
        method: str,
        path: str,
        *,
        admin: bool,
        answer: Any,
        body: type[BaseModel] | Mapping[str, Any] = MappingProxyType({}),
        query: type[Query] | None = None,
        headers: Mapping[str, Any] = MappingProxyType({}),
    ) -> Callable[[View], View]:
        """Register a view, whose docstring is the description.

        ``answer``: the type it returns, or an ``Answer``. ``body``: a model, or its type by media type if the view
        reads the body itself. ``headers``: the types of the headers it reads. ``admin``: whether it requires
        ``LAB_ADMIN_TOKEN``, if that is set.
        """
        model, kinds = (None, body) if isinstance(body, Mapping) else (body, {"application/json": body})

        def register(view: View) -> View:
            def endpoint(**arguments: Any) -> Response:
                parameters = parsed(query or Query, _parameters(), 400, "invalid-parameter")
                if query is not None:
                    arguments["query"] = parameters
                if model is not None:
                    arguments["body"] = parsed(model, as_object(raw_body(BODY_BYTES_MAX)), 422, "invalid-field")
                result = view(**arguments)
                return result if isinstance(result, Response) else self.reply(result)

            name = f"{method} {path}"
            self._app.add_url_rule(path, name, endpoint, methods=[method])
            guard.declare(self._app, name, admin=admin)
            answers = answer if isinstance(answer, Answer) else Answer(answer)
            operation = Operation(method, path, view.__doc__ or "", answers, kinds=kinds, query=query, headers=headers)
            self._description.add(operation, guard.security(self._app) if admin else None)
            return view

        return register

    def reply(self, answer: Mapping[str, Any] | list[Any], status: int = 200, position: str | None = None) -> Response:
        """Return an answer; if it reflects data, its headers have the ``position`` and this node's id."""
        headers = {"Content-Type": "application/json"}
        if position is None and isinstance(answer, Mapping):
            position = answer.get("position")
        if position:
            headers |= {"Lab-Position": position, "Lab-Source": self._node_id}
        return Response(strict_json.dumps(answer) + "\n", status, headers)


def as_object(value: Any) -> dict[str, Any]:
    """Return a JSON object from bytes or from an item of ``strict_json.items``. Raises ``Problem``."""
    if isinstance(value, bytes):
        try:
            value = strict_json.loads(value)
        except ValueError as error:
            raise not_json(error) from None
    if isinstance(value, ValueError):
        raise not_json(value)
    if not isinstance(value, dict):
        kind = {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
        raise Problem(400, "not-an-object", "Not an object", f"This is a JSON {kind}, not an object.")
    return value


def not_json(error: ValueError) -> Problem:
    what = "This JSON is refused" if isinstance(error, strict_json.Refused) else "This is not JSON"
    return Problem(400, "not-json", "Not JSON", f"{what}: {error}.")


def raw_body(bytes_max: int) -> bytes:
    """Read the request's body to its end, within bounds. Raises ``Problem``."""
    try:
        raw = request.stream.read(bytes_max + 1)
    except (ParseException, OSError) as error:  # a malformed chunk, or a disconnected sender
        raise _incomplete(str(error)) from None
    if len(raw) > bytes_max:
        raise Problem(413, "body-too-large", "Body too large", f"A body must have at most {bytes_max} bytes.")
    length = request.content_length
    if length is not None and len(raw) < length:
        raise _incomplete(f"{len(raw)} bytes of {length}")
    return raw


def _drain(answer: Response) -> Response:
    """Read more of a refused body: a client still sending when the connection closes would never see the answer."""
    if answer.status_code >= 400:
        with suppress(ParseException, OSError, HTTPException):
            for _ in range(_DRAINED_CHUNKS):
                if not request.stream.read(BODY_BYTES_MAX):
                    break
    return answer


def _incomplete(reason: str) -> Problem:
    return Problem(400, "incomplete-body", "Incomplete body", f"The body arrived incomplete: {reason[:200]}.")


def parsed(model: type[Model], values: dict[str, Any], status: int, slug: str) -> Model:
    """Return the values as a model. Raises ``Problem`` with this status and a message for each field."""
    try:
        return model.model_validate(values)
    except ValidationError as failure:
        tags: int = getattr(model, "TAGS", 0)
        found = failure.errors(include_url=False, include_input=False)
    errors = [{"field": _field(error, tags), "message": error["msg"].removeprefix("Value error, ")} for error in found]
    detail = "; ".join(": ".join(filter(None, error.values())) for error in errors)
    title = "Invalid parameter" if status == 400 else "Invalid field"
    raise Problem(status, slug, title, f"{detail}.", errors=errors)


def _field(error: Any, tags: int) -> str:
    """The field that an error is about; if the kind is invalid, the field that selects it."""
    chosen_by = str(error.get("ctx", {}).get("discriminator", "")).strip("'")
    return ".".join([*map(str, error["loc"][tags:]), *filter(None, [chosen_by])])


def _require_utf_8() -> None:
    """Refuse a path that is not UTF-8, which would be read as another key."""
    path = request.environ["PATH_INFO"]
    try:
        path.isascii() or path.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "not-utf-8", "Not UTF-8", "The path is not percent-encoded UTF-8.") from None


def _parameters() -> dict[str, str]:
    try:
        pairs = parse_qsl(request.query_string.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        detail = "The parameters are not percent-encoded UTF-8."
        raise Problem(400, "invalid-parameter", "Invalid parameter", detail) from None
    found = dict(pairs)
    if len(found) < len(pairs):
        detail = f"A parameter appears twice: {', '.join(name for name, _ in pairs)[:100]}."
        raise Problem(400, "invalid-parameter", "Invalid parameter", detail)
    return found
