"""A replica's settings as a request changes them: its delay, its order, its acknowledgements."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from broker.delay import DELAY_MS_MAX, Fixed, Order, from_json
from broker.registry import Settings
from nodes.http.api import Body

Milliseconds = Annotated[int | float, Field(ge=0, le=DELAY_MS_MAX)]
_CHANGEABLE = ("delay_ms", "model", "ack_delay_ms", "order", "seed")


def _readable(model: dict[str, Any]) -> dict[str, Any]:
    from_json(model)
    return model


class SettingsBody(Body):
    """Settings to change; omitted ones keep their value.

    ``order``: in log order, or each entry when it is due. ``seed``: the model's delays are drawn from it.
    """

    delay_ms: Milliseconds | None = None
    model: Annotated[dict[str, Any], AfterValidator(_readable)] | None = None
    ack_delay_ms: Milliseconds | None = None
    order: Order | None = None
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None

    @model_validator(mode="after")
    def _something_and_once(self) -> SettingsBody:
        if self.delay_ms is not None and self.model is not None:
            raise ValueError("give either delay_ms or model")
        if all(getattr(self, name) is None for name in _CHANGEABLE):
            raise ValueError("give delay_ms, model, ack_delay_ms, order or seed")
        return self

    def applied_to(self, old: Settings) -> Settings:
        changes = {
            name: found for name in ("ack_delay_ms", "order", "seed") if (found := getattr(self, name)) is not None
        }
        if self.delay_ms is not None:
            changes["delay"] = Fixed(self.delay_ms)
        elif self.model is not None:
            changes["delay"] = from_json(self.model)
        return old._replace(**changes)
