"""One deliberate bug each, and where it goes: a build of the lab with it must not pass."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Build:
    """A bug: in ``path`` the text ``before`` becomes ``after``."""

    name: str
    path: str
    before: str
    after: str


BUILDS = (
    Build(
        "returns the oldest answer of a quorum",
        "nodes/client/levels.py",
        "    best = max(found, ",
        "    best = min(found, ",
    ),
    Build(
        "acknowledges before it commits",
        "nodes/replica/applier.py",
        "            state = self._apply(entries, generation)\n",
        "            parts.acknowledger.add(entries)\n            state = self._apply(entries, generation)\n",
    ),
    Build(
        "applies on arrival, without order",
        "broker/delay/line.py",
        'return self._schedule is not None and self._schedule.order == "arrival"',
        "return True",
    ),
    Build(
        "applies before it is due",
        "broker/delay/line.py",
        "return max(entry.at_us + delay_us, self._not_before_us)",
        "return entry.at_us",
    ),
    Build(
        "ignores a gap",
        "broker/position.py",
        "return other.version == self.version + 1",
        "return other.version > self.version",
    ),
    Build(
        "forgets the epoch",
        "nodes/replica/store.py",
        '        if entry.op == "epoch":\n            db.execute("DELETE FROM data")\n            last.clear()\n',
        '        if entry.op == "epoch":\n            pass\n',
    ),
    Build(
        "treats a repeated write as a new one",
        "broker/append.lua",
        "if known then",
        "if known and false then",
    ),
    Build(
        "appends to a log that lost its tail",
        "nodes/primary/upkeep.py",
        "known = max(seen, self._parts.gate.state.position, foreign or START)",
        "known, silent = START, []",
    ),
    Build(
        "reports a write of unknown outcome as not applied",
        "nodes/http/peers.py",
        "sent=repeated or not refused",
        "sent=not refused",
    ),
    Build(
        "does not renew the fence when another log server takes over",
        "broker/append.lua",
        "if not head[6] or head[6] ~= replication_id() or",
        "if not head[6] or",
    ),
    Build(
        "acknowledges without awaiting the copies",
        "broker/log.py",
        "not (isinstance(confirmed, int) and confirmed >= copies)",
        "not isinstance(confirmed, int)",
    ),
    Build(
        "takes READONLY for applied",
        "broker/log.py",
        "        except exceptions.NoScriptError:\n",
        "        except exceptions.ReadOnlyError:\n"
        '            return [["applied", 1, 1, 0]]\n'
        "        except exceptions.NoScriptError:\n",
    ),
    Build(
        "lets a former master that is master again append in an epoch that was left",
        "broker/append.lua",
        "head[6] ~= replication_id() or tonumber(head[1]) < tonumber(ARGV[3]) then",
        "head[6] ~= replication_id() then",
    ),
    Build(
        "lets a restarted primary append in an epoch that was left",
        "nodes/primary/upkeep.py",
        "elif self._is_new and self._parts.link.address.moves:",
        "elif False:",
    ),
    Build(
        "keeps what waits when it installs a snapshot",
        "nodes/replica/reader.py",
        "                with self._inbox.clearing():\n",
        "                if True:\n",
    ),
    Build(
        "takes in new entries before the pending ones",
        "nodes/replica/reader.py",
        "        after = START\n",
        "        self._offer(self._group.read(_BATCH, 1))\n        after = START\n",
    ),
    Build(
        "acknowledges what a snapshot replaces before it is installed",
        "nodes/replica/reader.py",
        "            # The change at the snapshot's position",
        "            self._acknowledger.discard([position for position, _ in self._group.pending(START, _BATCH)])\n"
        "            # The change at the snapshot's position",
    ),
    Build(
        "compares epochs as text",
        "broker/append.lua",
        "tonumber(head[1]) < tonumber(ARGV[3])",
        "head[1] < ARGV[3]",
    ),
    Build(
        "takes the position of a heartbeat for what was delivered",
        "nodes/primary/upkeep.py",
        "            for replica, reply in self._parts.peers.ask_all(missing).items():\n",
        "            missing.clear()\n            for replica, reply in self._parts.peers.ask_all(missing).items():\n",
    ),
    Build(
        "continues where the log was rolled back",
        "nodes/replica/reader.py",
        'self._resync("log_rolled_back")',
        "self._gate.advance(self._parts.store.continue_at(entry.position)); self._move(last=entry.position)",
    ),
    Build(
        "acknowledges a position without what is missing before it",
        "nodes/replica/applier.py",
        "parts.acknowledger.add(entries, state.position)",
        "parts.acknowledger.add(entries, max(entries).position)",
    ),
    Build(
        "goes on in the same epoch although a replica is silent",
        "nodes/primary/upkeep.py",
        "return max(seen, default=START), sorted(missing)",
        "return max(seen, default=START), []",
    ),
    Build(
        "leaves what an epoch invalidates pending",
        "broker/delay/line.py",
        "                void += self._waiting\n",
        "",
    ),
    Build(
        "leaves the lag of a group that it places to the server",
        "broker/groups.lua",
        "local counter = added and after and {'ENTRIESREAD', string.format('%.0f', added - after)} or {}",
        "local counter = {}",
    ),
)
