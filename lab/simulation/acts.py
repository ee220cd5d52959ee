"""What can be done to the simulated lab from outside, for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.simulation.node import Node
from lab.simulation.schedule import Fault
from lab.simulation.world import World
from nodes.http.peers import Ask, Peers


class Acts:
    """What is done ends by itself after a while; ``heal`` ends all of it at once."""

    def __init__(self, world: World) -> None:
        self._world, self._scheduler = world, world.scheduler
        self._undo: dict[int, Callable[[], object]] = {}
        self._acts = 0
        self._busy_until = 0.0  # with a failover
        self.has_lost_stores = self.has_arrival_order = False  # since the last quiet point
        self.replicas_max = 2

    def start(self) -> None:
        """Start in the task of a process outside of the lab, which asks its nodes."""
        self._peers = Peers(16, self._scheduler.now_seconds)

    def heal(self) -> None:
        """End every fault: only a replica that is away stays away."""
        self._world.at_next_append = lambda: None
        while self._undo:  # the end of a failover is itself undone: the former master is told
            self._undo.pop(next(iter(self._undo)))()
        self._world.network.mend_all()

    def _for(self, seconds: float, undo: Callable[[], object]) -> None:
        self._acts += 1
        number = self._acts
        self._undo[number] = undo
        self._scheduler.after(seconds, lambda: self._end(number))

    def _end(self, number: int) -> None:
        if (undo := self._undo.pop(number, None)) is not None:  # it has not been healed
            undo()

    def _node(self, fault: Fault) -> Node:
        nodes = [node for node in self._world.nodes.values() if not node.is_away]
        return nodes[fault.target % len(nodes)]

    def _replica(self, fault: Fault) -> Node | None:
        replicas = [node for node in self._world.replicas if not node.is_away and node.process.is_alive]
        return replicas[fault.target % len(replicas)] if replicas else None

    def _down(self, node: Node, how: Any, seconds: float) -> None:
        if not node.process.is_alive:
            return
        node.kill(how)
        self._for(seconds, lambda: None if node.process.is_alive else node.start())

    def _freeze(self, node: Node, seconds: float) -> None:
        process = node.process
        self._scheduler.freeze(process)
        self._for(seconds, lambda: self._scheduler.thaw(process))

    def _ask(self, ask: Ask) -> None:
        self._scheduler.spawn(lambda: self._peers.attempt(ask), self._world.clients)
