"""What can be made wrong with a replica: one small class per fault, and how they are read."""

from __future__ import annotations

from typing import Annotated, ClassVar, get_args

from pydantic import Field, RootModel

from nodes.replica.faults.corrupt import Corrupt
from nodes.replica.faults.crash import Crash
from nodes.replica.faults.drop_ack import DropAck
from nodes.replica.faults.duplicate import Duplicate
from nodes.replica.faults.fault import Fault, Parts
from nodes.replica.faults.partition import Partition
from nodes.replica.faults.pause import Pause
from nodes.replica.faults.skew import Skew
from nodes.replica.faults.slow_apply import SlowApply

__all__ = ["FAULTS", "AnyFault", "Fault", "FaultBody", "Parts"]

AnyFault = Pause | Partition | Crash | SlowApply | Duplicate | DropAck | Skew | Corrupt


class FaultBody(RootModel[Annotated[AnyFault, Field(discriminator="fault")]]):
    """One of the faults, with its parameters."""

    TAGS: ClassVar[int] = 1


FAULTS: dict[str, type[Fault]] = {
    get_args(kind.model_fields["fault"].annotation)[0]: kind for kind in get_args(AnyFault)
}
