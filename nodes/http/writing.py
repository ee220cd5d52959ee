"""A write as primary and client take it."""

from __future__ import annotations

import re
import secrets
from functools import cached_property
from typing import Annotated, Any, NotRequired

from pydantic import Field, SkipValidation, model_validator
from typing_extensions import TypeAliasType, TypedDict

from nodes.http import strict_json
from nodes.http.api import Body, Key, Query, TimeoutMs
from nodes.http.problem import Problem

VALUE_BYTES_MAX = 256 * 2**10
WRITE_ID_MAX = 128
# No quote and no backslash, so that it can stand in JSON as it is.
_WRITE_ID_CHARACTER = r"[!#-\[\]-~]"
_WRITE_ID = re.compile(f"{_WRITE_ID_CHARACTER}{{1,{WRITE_ID_MAX}}}")


Value = TypeAliasType("Value", "bool | str | float | list[Value] | dict[str, Value] | None")


class WriteBody(Body):
    """A key and its new value, which is any JSON."""

    key: Key
    # Strict JSON already, so that its schema is for the description only.
    value: Annotated[
        SkipValidation[Value], Field(description="any JSON, at most 256 KiB, with numbers that a double holds")
    ]

    @cached_property
    def text(self) -> str:
        """The value as compact JSON text, as the log carries it."""
        return strict_json.dumps(self.value)

    @model_validator(mode="after")
    def _can_be_written(self) -> WriteBody:
        try:
            size = len(self.text.encode())
        except ValueError as error:
            raise ValueError(f"value: {error}") from None
        if size > VALUE_BYTES_MAX:
            raise ValueError(f"value: at most {VALUE_BYTES_MAX} bytes of JSON, not {size}")
        return self


class AcksQuery(Query):
    """How many replicas must have applied a write before it is answered, and how long to wait for them."""

    acks: Annotated[int, Field(ge=0, le=1000)] = 0
    timeout_ms: TimeoutMs = 5000


class WriteAnswer(TypedDict):
    """An acknowledged write, and where it is in the log; where ``acks`` were asked for, which replicas have it."""

    version: int
    position: str
    write_id: str
    key: str
    value: Any
    write_timestamp: str | None
    replication_started: bool
    acks_reached: NotRequired[int]
    acknowledged_by: NotRequired[list[str]]


def idempotency_key(length_max: int) -> dict[str, Any]:
    """The header of requests whose repetition is the same write, for a description."""
    pattern = f"^{_WRITE_ID_CHARACTER}{{1,{length_max}}}$"
    return {"Idempotency-Key": Annotated[str, Field(pattern=pattern, description="the same for a retry")]}


IDEMPOTENT = idempotency_key(WRITE_ID_MAX)


def write_id_of(idempotency_key: str | None) -> str:
    """The write id that a request asks for, or a new one. Raises ``Problem`` 400 for one that cannot be used."""
    if idempotency_key is None:
        return secrets.token_hex(16)
    found = idempotency_key.strip().strip('"')
    if _WRITE_ID.fullmatch(found) is None:
        detail = "Idempotency-Key: 1 to 128 visible ASCII characters without quote and backslash."
        raise Problem(400, "invalid-idempotency-key", "Invalid Idempotency-Key", detail)
    return found
