"""What goes wrong at the log, its servers and the links: one method for each kind.

A method returns the lane and the words of what happened, ``None`` if it could not.
"""

from __future__ import annotations

from typing import Any

from broker.position import Position
from lab.simulation.acts import Acts
from lab.simulation.log_server import LOG, LogServer
from lab.simulation.schedule import Fault
from lab.simulation.world import CLIENT, SENTINEL

_WAITED_SECONDS = 5.0  # longer than the primary waits for a replica that does not tell what it has seen
_CHOSEN_MAX = 1000  # the epoch from which on the IDs of foreign entries are not chosen any more


class LogFaults(Acts):
    """Faults of the log's servers, of the links to them, and of what others do to the log."""

    def _trim(self, fault: Fault) -> Any:
        server = self._world.master
        if not server.is_up:
            return None
        head = self._world.judge.lines[server.name].head
        first = max(0, head.version + 1 - int(200 * fault.size**4))  # sometimes nothing is left
        server.command("XTRIM", LOG, "MINID", f"{head.epoch}-{first}")
        words = f"its log is trimmed to what follows {head.epoch}-{first}"
        if fault.target % 2:  # so that nothing follows what is gone
            self._down(self._world.primary, "killed", fault.seconds(0.5, 8))
            words += ", and the primary is killed"
        if fault.more < 0.5 and (node := self._replica(fault)) is not None:  # what is pending there can be gone
            self._down(node, "killed", 0.05)
            words += f", and {node.name} is killed"
        return server.name, words

    def _foreign_entry(self, fault: Fault) -> Any:
        """Its ID is of now, or just before an epoch with one more digit."""
        world, server = self._world, self._world.master
        if not server.is_up:
            return None
        epoch = world.judge.lines[server.name].head.epoch
        last = 10 ** len(str(epoch)) - 1
        name = "*" if epoch >= _CHOSEN_MAX or fault.more < 0.2 else f"{max(epoch, last - 1)}-{10**9 + fault.target}"
        found = server.command("XADD", LOG, name, "hello", "world")
        if not isinstance(found, bytes):
            return None
        world.judge.foreign.add(Position.of_entry(found.decode()))
        return server.name, f"another program adds the entry {found.decode()} to the log"

    def _partition(self, fault: Fault) -> Any:
        world, network = self._world, self._world.network
        ends = [*world.nodes, *(server.name for server in world.servers), CLIENT]
        if world.shape.has_sentinel:
            ends.append(SENTINEL)
        one = ends[fault.target % len(ends)]
        others = [end for end in ends if end != one]
        other = others[fault.target // 31 % len(others)]
        both, seconds = fault.more < 0.6, fault.seconds(0.2, 20)
        ways = [(one, other), (other, one)] if both else [(one, other)]
        for way in ways:
            network.cut(*way)
        self._for(seconds, lambda: list(map(network.mend, *zip(*ways, strict=True))))
        return one, f"{'is cut off from' if both else 'does not reach'} {other}, for {seconds:.2f} s"

    def _log_restart(self, fault: Fault) -> Any:
        server = self._world.master
        if not server.is_up or self._is_busy():
            return None
        seconds = fault.seconds(0.05, 6)
        self._world.stop(server)
        self._for(seconds, lambda: self._world.restart(server))
        return server.name, f"is killed, for {seconds:.2f} s"

    def _log_power_loss(self, fault: Fault) -> Any:
        """What was written in the second before is not on its disk. The primary can be on the same machine, and
        the replicas can hang until long after.
        """
        world, server = self._world, self._world.master
        if not server.is_up or self._is_busy() or world.shape.copies:
            return None
        lost, seconds = fault.more, fault.seconds(0.2, 5)
        saved = world.save(server)
        self._busy_until = self._scheduler.now_seconds() + lost + seconds

        def lose() -> None:
            if server.is_up:
                world.stop(server)
                world.judge.may_lose = True
                world.trace.add(server.name, f"loses power, and the last {lost:.2f} s, for {seconds:.2f} s")
                self._for(seconds, restart)
                if takes_primary:
                    self._down(world.primary, "killed", seconds)
                for node in world.replicas if takes_replicas else []:
                    if node.process.is_alive and not node.process.is_frozen:
                        self._freeze(node, seconds + _WAITED_SECONDS)

        def restart() -> None:
            world.restart(server, saved)
            if is_cut:  # as its start does if it has to cut off the damaged end of its file
                server.command("HSET", "lab14:head", "doubt", "1")

        takes_primary, takes_replicas = fault.target % 3 > 0, fault.target // 3 % 3 > 0
        is_cut = fault.target // 9 % 4 == 0
        self._for(lost, lose)
        more = f"{' with the primary' if takes_primary else ''}{', and the replicas hang,' if takes_replicas else ''}"
        return server.name, f"will lose power{more} in {lost:.2f} s, and what is written until then"

    def _log_hang(self, fault: Fault) -> Any:
        server, seconds = self._world.master, fault.seconds(0.1, 8)
        if not server.is_up or server.is_frozen:
            return None
        server.freeze()
        self._for(seconds, server.thaw)
        return server.name, f"hangs, for {seconds:.2f} s"

    def _log_refuses(self, fault: Fault) -> Any:
        server, seconds = self._world.master, fault.seconds(0.2, 10)
        server.refuses = "MISCONF Errors writing to the AOF file: No space left on device"
        self._for(seconds, lambda: setattr(server, "refuses", ""))
        return server.name, f"its disk is full, for {seconds:.2f} s"

    def _log_clock(self, fault: Fault) -> Any:
        server = self._world.master
        step_us = round((fault.more - 0.5) * (7_200_000_000 if fault.size > 0.8 else 2_000_000))
        self._world.set_clock(server, server.offset_us + step_us)
        return server.name, f"its clock is set by {step_us / 1e6:+.3f} s"

    def _failover(self, fault: Fault) -> Any:
        """Another server becomes master with what it had some time before; the former one is told later."""
        world, former = self._world, self._world.master
        if not world.shape.has_sentinel or self._is_busy():
            return None
        (other,) = (server for server in world.servers if server is not former)
        if not other.is_up:
            return None
        behind = fault.more if former.is_up else 0.0
        demoted = fault.seconds(0.1, 10) if fault.target % 2 else 0.0
        saved = None if other.is_master else world.save(former)
        dies = fault.target % 3 == 0 and saved is not None
        self._busy_until = self._scheduler.now_seconds() + behind + demoted
        world.is_replicating = False
        world.judge.may_lose = world.judge.may_lose or not world.shape.copies

        def promote() -> None:
            world.promote(other, saved)
            if dies and former.is_up:
                world.stop(former)
            self._for(demoted, lambda: self._demote(former))

        self._for(behind, promote)
        what = f"{other.name} takes over{f', {behind:.2f} s behind' if saved else ' as it is'}"
        return former.name, f"{what}; {'it dies' if dies else f'it learns of it {demoted:.2f} s later'}"

    def _failback(self, fault: Fault) -> Any:
        """Another server is master for a while; then the former one, which was not demoted, is master again.

        The primary can be killed at that moment, and know nothing of the other one.
        """
        world, former = self._world, self._world.master
        (other,) = (server for server in world.servers if server is not former)
        if self._is_busy() or not former.is_up or not other.is_up:
            return None
        seconds, demoted = fault.seconds(0.5, 8), 3 * fault.more
        self._busy_until = self._scheduler.now_seconds() + seconds + demoted
        world.is_replicating = False
        world.judge.may_lose = world.judge.may_lose or not world.shape.copies
        world.promote(other, world.save(former))

        def promote() -> None:
            if takes_primary:
                self._down(world.primary, "killed", fault.more)
            world.promote(former, None)
            self._for(demoted, lambda: self._demote(other))

        takes_primary = fault.target % 3 == 0
        self._for(seconds, promote)
        words = f"{other.name} takes over; {former.name} does so again, as it is, {seconds:.2f} s later"
        return former.name, words + (", when the primary is killed" if takes_primary else "")

    def _demote(self, former: LogServer) -> None:
        world = self._world
        if former is world.master:
            return
        if not former.is_up:
            world.restart(former)
        former.thaw()
        former.demote()
        world.is_replicating = True
        world.trace.add(former.name, f"is a replica of {world.master.name}")

    def _is_busy(self) -> bool:
        return self._scheduler.now_seconds() < self._busy_until
