"""Objects shared by the parts of the primary."""

from dataclasses import dataclass

from broker.clock import LogClock
from broker.log import ReplicationLog
from broker.registry import Events, Registry
from nodes.http.peers import Peers
from nodes.primary.acks import Acknowledgements
from nodes.primary.metrics import PrimaryMetrics
from nodes.runtime.config import PrimaryConfig
from nodes.runtime.gate import PositionGate


@dataclass(frozen=True)
class Parts:
    """The shared objects; ``gate`` has the newest position that this primary has seen."""

    config: PrimaryConfig
    log: ReplicationLog
    registered: Registry
    events: Events
    gate: PositionGate
    acknowledgements: Acknowledgements
    peers: Peers
    clock: LogClock
    metrics: PrimaryMetrics
