"""What goes wrong at nodes, and what people change of them: one method for each kind.

A method returns the lane and the words of what happened, ``None`` if it could not.
"""

from __future__ import annotations

from typing import Any

from lab.simulation.acts import Acts
from lab.simulation.disk import Disk
from lab.simulation.node import Node
from lab.simulation.schedule import Fault
from lab.simulation.world import PRIMARY
from nodes.http.peers import Ask

_AWAY_SECONDS = (60.0, 3600.0)
_CLOCK_SECONDS = 86400.0  # by which a machine's clock is wrong at most
_FIXED_SHARE = 0.5  # of changes of a delay
_REPLACED_SHARE = 0.5  # of changes to order arrival: with a snapshot
_FIXED: tuple[dict[str, Any], ...] = tuple({"kind": "fixed", "ms": ms} for ms in (0, 200, 500, 1500, 2500))
_DRAWN: tuple[dict[str, Any], ...] = (
    {"kind": "uniform", "low_ms": 50, "high_ms": 1500},
    {"kind": "exponential", "mean_ms": 300},
    {"kind": "lognormal", "median_ms": 200, "sigma": 1},
)


class NodeFaults(Acts):
    """Faults of nodes and of their machines."""

    def _kill(self, fault: Fault) -> Any:
        node = self._node(fault) if fault.target // 7 % 3 else self._world.primary
        if not node.process.is_alive:
            return None
        seconds = fault.seconds(0.05, 8)
        if node is self._world.primary and fault.target // 21 % 2:
            self._world.at_next_append = lambda: self._down(node, "killed", seconds)
            return node.name, f"is killed once the log has its next write, before it knows, for {seconds:.2f} s"
        self._down(node, "killed", seconds)
        return node.name, f"killed, for {seconds:.2f} s"

    def _power_loss(self, fault: Fault) -> Any:
        if (node := self._replica(fault)) is None:
            return None
        seconds = fault.seconds(0.1, 8)
        self.has_lost_stores = True
        self._down(node, "power", seconds)
        return node.name, f"its machine loses power, for {seconds:.2f} s"

    def _damage(self, fault: Fault) -> Any:
        if (node := self._replica(fault)) is None:
            return None
        self.has_lost_stores = True
        if fault.more < 0.5 and node.disk is not None:
            node.disk.is_damaged = True
            return node.name, "its store's file is damaged while it is used"
        self._down(node, "damaged", fault.seconds(0.1, 3))
        words = "killed, and its store's file is damaged"
        if fault.target % 2 and node.disk is not None:
            words += "; " + self._fill(node.disk, 4)
        return node.name, words

    def _hang(self, fault: Fault) -> Any:
        node = self._node(fault)
        if not node.process.is_alive or node.process.is_frozen:
            return None
        seconds = fault.seconds(0.1, 10)
        self._freeze(node, seconds)
        return node.name, f"hangs, for {seconds:.2f} s"

    def _slow(self, fault: Fault) -> Any:
        node, slow = self._node(fault), self._world.network.slow
        slow[node.name] = 0.01 + fault.more * 0.3
        self._for(fault.seconds(1, 20), lambda: slow.pop(node.name, None))
        return node.name, f"is reached {slow[node.name] * 1000:.0f} ms later"

    def _clock(self, fault: Fault) -> Any:
        """Nothing that is measured or judged depends on it: only the log's time counts."""
        node, seconds = self._node(fault), (fault.more - 0.5) * 2 * _CLOCK_SECONDS**fault.size
        self._scheduler.wall_offsets_ns[node.name] = round(seconds * 1e9)
        return node.name, f"its machine's clock is wrong by {seconds:+.3f} s now"

    def _full_disk(self, fault: Fault) -> Any:
        if (node := self._replica(fault)) is None or node.disk is None:
            return None
        return node.name, self._fill(node.disk, fault.seconds(0.2, 20))

    def _fill(self, disk: Disk, seconds: float) -> str:
        disk.is_full = True
        self._for(seconds, lambda: setattr(disk, "is_full", False))
        return f"its disk is full, for {seconds:.2f} s"

    def _away(self, fault: Fault) -> Any:
        if (node := self._replica(fault)) is None or any(other.is_away for other in self._world.replicas):
            return None
        low, high = _AWAY_SECONDS
        seconds = low * (high / low) ** fault.size
        node.is_away = True
        node.kill()

        def come_back() -> None:
            node.is_away = False
            if self._world.nodes.get(node.name) is node:  # it has not left for good meanwhile
                node.start()

        self._scheduler.after(seconds, come_back)
        return node.name, f"leaves, for {seconds:.0f} s"

    def _join(self, fault: Fault) -> Any:
        world = self._world
        if len(world.replicas) > 2:
            return None
        node = world.add(3)
        self.replicas_max = 3
        node.start()

        def leave() -> None:
            node.kill()
            del world.nodes[node.name]
            self._ask(Ask(f"{world.primary.url}/admin/replicas/{node.name}", "DELETE"))

        self._scheduler.after(20 + 200 * fault.size, leave)
        return node.name, f"joins, for {20 + 200 * fault.size:.0f} s"

    # -- the replicas' own faults, and settings -----------------------------------------------------------------------

    def _replica_fault(self, fault: Fault) -> Any:
        if (node := self._replica(fault)) is None:
            return None
        kinds: list[dict[str, Any]] = [
            {"fault": "pause"},
            {"fault": "slow_apply", "entries_per_second": round(20 + 100 * fault.more)},
            {"fault": "duplicate", "probability": round(0.2 + 0.8 * fault.more, 2)},
            {"fault": "drop_ack", "probability": round(0.2 + 0.8 * fault.more, 2)},
            {"fault": "skew", "skew_ms": round((fault.more - 0.5) * 400)},
            {"fault": "partition"},
        ]
        body = kinds[fault.target // 7 % len(kinds)] | {"duration_ms": round(fault.seconds(200, 20_000))}
        self._ask(Ask(f"{node.url}/admin/faults", "POST", body=body))
        return node.name, "fault " + ", ".join(
            f"{name}={value}" for name, value in body.items() if name != "fault"
        ).join((f"{body['fault']} (", ")"))

    def _change(self, node: Node, **changes: Any) -> Any:
        self._ask(
            Ask(f"{self._world.primary.url}/admin/replication-delay", "POST", body={"replica": node.name, **changes})
        )
        return node.name, "is given " + ", ".join(f"{name} {value}" for name, value in changes.items())

    def _delay(self, fault: Fault) -> Any:
        if (node := self._replica(fault)) is None:
            return None
        name = ("model", "ack_model", "read_model", "model")[fault.target // 7 % 4]
        usual = _FIXED[fault.target % len(_FIXED)] if name == "model" else _FIXED[0]
        if fault.more < _FIXED_SHARE:
            return self._change(node, **{name: usual})
        # Models apply one entry after another, which takes the time of many.
        self._for(fault.seconds(5, 60), lambda: self._change(node, **{name: usual}))
        return self._change(node, **{name: _DRAWN[fault.target // 31 % len(_DRAWN)], "seed": fault.target})

    def _order(self, fault: Fault) -> Any:
        if (node := self._replica(fault)) is None:
            return None
        self.has_arrival_order = True  # also until the change back has reached it
        self._for(fault.seconds(5, 60), lambda: self._change(node, order="log", model=_FIXED[1]))
        told = self._change(node, order="arrival", model=_DRAWN[fault.target // 7 % len(_DRAWN)])
        return (node.name, f"{told[1]}; {self._replace(node, fault)}") if fault.more < _REPLACED_SHARE else told

    def _reset(self, _fault: Fault) -> Any:
        self._ask(Ask(f"{self._world.primary.url}/admin/reset", "POST", wait_ms=6000))
        return PRIMARY, "is reset"

    def _resync(self, fault: Fault) -> Any:
        if (node := self._replica(fault)) is None:
            return None
        return node.name, self._replace(node, fault)

    def _replace(self, node: Node, fault: Fault) -> str:
        """Let a replica install a snapshot; if it is paused meanwhile, that is due together with what waits."""
        paused = ""
        if fault.target // 5 % 4:
            seconds = fault.seconds(0.5, 8)
            body = {"fault": "pause", "duration_ms": round(seconds * 1000)}
            self._ask(Ask(f"{node.url}/admin/faults", "POST", body=body))
            paused = f", and paused for {seconds:.2f} s"
        self._ask(Ask(f"{node.url}/admin/resync", "POST"))
        return f"is told to install a snapshot{paused}"
