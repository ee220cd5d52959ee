"""Changes that nodes accept: a single write, a batch, and a replica's settings."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, SkipValidation, model_validator
from typing_extensions import TypeAliasType, TypedDict

from broker.delay.models import DELAY_MS_MAX, Fixed, Order, from_json
from broker.registry import Settings
from nodes.http import strict_json
from nodes.http.api import Body, Key, Query, TimeoutMs, as_object, not_json, parsed
from nodes.http.problem import Problem

VALUE_BYTES_MAX = 256 * 2**10
WRITE_ID_MAX = 128
BATCH_ITEMS_MAX = 10_000
BATCH_WRITE_ID_MAX = 120  # leaves room for the number of an item
_WRITE_ID_CHARACTER = r"[!#-\[\]-~]"  # no quote or backslash, so JSON needs no escape

Milliseconds = Annotated[int | float, Field(ge=0, le=DELAY_MS_MAX)]
Value = TypeAliasType("Value", "bool | str | float | list[Value] | dict[str, Value] | None")


class WriteBody(Body):
    key: Key
    # Already validated as strict JSON; the schema is for the description only.
    value: SkipValidation[Value] = Field(description="any JSON, at most 256 KiB, with numbers that a double holds")

    @cached_property
    def text(self) -> str:
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


class CopiesQuery(Query):
    copies: Annotated[int, Field(ge=0, le=100)] | None = None


class AcksQuery(CopiesQuery):
    acks: Annotated[int, Field(ge=0, le=1000)] = 0
    timeout_ms: TimeoutMs = 5000


class WriteAnswer(TypedDict):
    version: int
    position: str
    write_id: str
    key: str
    value: Any
    write_timestamp: str | None
    replication_started: bool
    acks_reached: NotRequired[int]
    acknowledged_by: NotRequired[list[str]]


_Items = Annotated[list[WriteBody], Field(max_length=BATCH_ITEMS_MAX)]
BATCH_BODIES = {"application/x-ndjson": str, "application/json": _Items | WriteBody}  # an object is a line


def batch_items(raw: bytes) -> list[WriteBody | Problem]:
    """Return each item of a batch, or its error. Raises ``Problem`` if the batch itself is invalid."""
    try:
        items = list(islice(_items(raw), BATCH_ITEMS_MAX + 1))
    except ValueError as error:
        raise not_json(error) from None
    if len(items) > BATCH_ITEMS_MAX:
        detail = f"A batch must have at most {BATCH_ITEMS_MAX} items."
        raise Problem(413, "batch-too-large", "Batch too large", detail)
    return [_checked(item) for item in items]


def _checked(item: Any) -> WriteBody | Problem:
    try:
        return parsed(WriteBody, as_object(item), 422, "invalid-field")
    except Problem as problem:
        return problem


def _items(raw: bytes) -> Iterator[Any]:
    if not raw.strip():
        raise ValueError("the body is empty")
    if raw.lstrip().startswith(b"["):
        return strict_json.items(raw)
    return (line for line in raw.split(b"\n") if line.strip())  # \r is white space in JSON


def idempotency_key(length_max: int) -> dict[str, Any]:
    pattern = f"^{_WRITE_ID_CHARACTER}{{1,{length_max}}}$"
    return {"Idempotency-Key": Annotated[str, Field(pattern=pattern, description="the same for a retry")]}


IDEMPOTENT = idempotency_key(WRITE_ID_MAX)


def write_id_of(idempotency_key: str | None, length_max: int = WRITE_ID_MAX) -> str:
    """Return the request's write id, or a new one. Raises ``Problem`` 400."""
    if idempotency_key is None:
        return secrets.token_hex(16)
    found = idempotency_key.strip().strip('"')
    if re.fullmatch(f"{_WRITE_ID_CHARACTER}{{1,{length_max}}}", found) is None:
        detail = f"Idempotency-Key: must be 1 to {length_max} visible ASCII characters without quote and backslash."
        raise Problem(400, "invalid-idempotency-key", "Invalid Idempotency-Key", detail)
    return found


def _readable(model: dict[str, Any]) -> dict[str, Any]:
    from_json(model)
    return model


Model = Annotated[dict[str, Any], AfterValidator(_readable)]
_DELAYS = {  # the fields of a constant and of a model, by the setting
    "delay": ("delay_ms", "model"),
    "ack": ("ack_delay_ms", "ack_model"),
    "read": ("read_delay_ms", "read_model"),
}


class SettingsBody(Body):
    """Settings to change; omitted ones keep their value. Each delay is a constant or a model, drawn from ``seed``:
    from commit to apply, from apply to acknowledgement (``ack_``), and of a read before it sees the store (``read_``).
    """

    delay_ms: Milliseconds | None = None
    model: Model | None = None
    ack_delay_ms: Milliseconds | None = None
    ack_model: Model | None = None
    read_delay_ms: Milliseconds | None = None
    read_model: Model | None = None
    order: Order | None = None
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None

    @model_validator(mode="after")
    def _something_and_once(self) -> SettingsBody:
        for constant, model in _DELAYS.values():
            if getattr(self, constant) is not None and getattr(self, model) is not None:
                raise ValueError(f"give either {constant} or {model}")
        if not self.model_dump(exclude_none=True, include=set(SettingsBody.model_fields)):
            *names, last = SettingsBody.model_fields
            raise ValueError(f"give {', '.join(names)} or {last}")
        return self

    def applied_to(self, old: Settings) -> Settings:
        changes = self.model_dump(exclude_none=True, include={"order", "seed"})
        for name, (constant, model) in _DELAYS.items():
            if (delay_ms := getattr(self, constant)) is not None:
                changes[name] = Fixed(delay_ms)
            elif (given := getattr(self, model)) is not None:
                changes[name] = from_json(given)
        return old._replace(**changes)
