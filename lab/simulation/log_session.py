"""A client's session at a simulated log server: fakeredis, with what the lab needs besides.

The scripts are the real ones, run by real Lua.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from fakeredis._commands import COMMANDS_WITH_SUB, Key, Signature, command
from fakeredis._core import CommandItem
from fakeredis._helpers import QUEUED, NoResponse, SimpleError
from fakeredis._msgs import FLAG_DO_NOT_CREATE, FLAG_LEAVE_EMPTY_VAL, FLAG_TRANSACTION
from fakeredis._socket import FakeSocket
from fakeredis._socket._resp import convert_to_resp2
from redis import Redis

from lab.simulation.scheduler import Process, Timer

if TYPE_CHECKING:
    from lab.simulation.log_server import LogServer

_PLAIN = frozenset((bytes, int, type(None)))


class Session(FakeSocket):
    """The connection of one client's process, at the server. ``answer`` receives each reply."""

    def __init__(self, server: LogServer, answer: Callable[[Any], None], client: Process) -> None:
        self.answer, self.client = answer, client
        self.host: LogServer = server
        super().__init__(server.store, db=0, client_class=Redis)

    def put_response(self, msg: Any) -> None:
        self.answer(msg)

    def refuse(self, said: str) -> None:
        """Answer with an error instead of executing a command, or the transaction that it belongs to."""
        self._transaction_failed = self._transaction is not None
        self.put_response(self._decode_result(SimpleError(said)))

    def _blocking(
        self, timeout: float | None, func: Callable[[bool], Any], shape: Callable[[Any], Any] | None = None
    ) -> Any:
        """Answer now or, without anything to return, when there is something or the time is up."""
        found = func(True)
        if found or self._in_transaction:
            return found if shape is None else shape(found)
        self.host.park(Parked(self, func, shape), timeout)
        return NoResponse()

    # -- what fakeredis does as well, without what the lab does not need: rights, notifications, other protocols -------

    def _process_command(self, fields: list[bytes]) -> None:
        name = fields[0].decode().lower()
        arguments = fields[1:]
        if arguments and name in COMMANDS_WITH_SUB:
            name, arguments = f"{name} {arguments[0].decode().lower()}", arguments[1:]
        try:
            func, signature = self._name_to_func(name)
            signature.check_arity(arguments, self.version)
            if self._queueing and self._transaction is not None and FLAG_TRANSACTION not in signature.flags:
                self._transaction.append((func, signature, arguments))
                result: Any = QUEUED
            else:
                result = self._run_command(func, signature, arguments, from_script=False)
        except SimpleError as error:
            if self._queueing:
                self._transaction_failed = True
            result = error
        result = self._decode_result(result)
        if not isinstance(result, NoResponse):
            self.put_response(result)

    def _run_command(
        self,
        func: Any,
        sig: Signature,
        args: list[Any],
        from_script: bool,
    ) -> Any:
        items: list[CommandItem] = []
        try:
            args = list(args)
            for index, kind in _converted(sig, len(args)):
                if not isinstance(kind, Key):
                    args[index] = kind.decode(args[index])
                    continue
                name = args[index]
                found = self._db.get(name)
                if found is None and kind.missing_return is not Key.UNSPECIFIED:
                    return kind.missing_return
                new = None if kind.type_ in {None, bytes} or FLAG_DO_NOT_CREATE in sig.flags else kind.type_
                default = new() if found is None and new is not None else None
                args[index] = item = CommandItem(name, self._db, found, default)
                items.append(item)
            result = func(*args)
            if sig.name in {"xack", "xadd"} and not from_script:
                self.host.on_write(self.client, sig.name, args)
        except SimpleError as error:
            result = error
        for item in items:
            item.writeback(remove_empty_val=FLAG_LEAVE_EMPTY_VAL not in sig.flags)
        return convert_to_resp2(result) if from_script and type(result) not in _PLAIN else result

    def _decode_result(self, result: Any) -> Any:
        """Return a reply as redis-py returns it. fakeredis converts each reply to RESP2 first."""
        kind = type(result)
        if kind is dict:
            result, kind = chain.from_iterable(result.items()), list
        if kind is list or kind is tuple:
            return [item if type(item) in _PLAIN else self._decode_result(item) for item in result]
        return super()._decode_result(convert_to_resp2(result))

    # -- scripts ------------------------------------------------------------------------------------------------------

    def evalsha(self, sha1: bytes, numkeys: int, *keys_and_args: bytes) -> Any:
        """Run a script that is compiled once: fakeredis compiles and collects garbage for each call."""
        server: Any = self._server
        try:
            script = server.script_cache[sha1]
        except KeyError:
            raise SimpleError("NOSCRIPT No matching script. Please use EVAL.") from None
        runtime = self._get_server_runtime(server)
        compiled = self.host.compiled.get(sha1)
        if compiled is None:
            compiled = self.host.compiled[sha1] = runtime.compile(script)
        server._lua_current_socket[0] = self
        self._script_resp = 2
        set_arguments = server._lua_set_keys_argv
        set_arguments(runtime.table_from(keys_and_args[:numkeys]), runtime.table_from(keys_and_args[numkeys:]))
        try:
            result = compiled()
        finally:
            self._script_resp = None
        reply = self._convert_lua_result(result, nested=False)
        self.host.on_script(sha1, keys_and_args[numkeys:], reply)
        return reply

    def _lua_redis_call(self, lua_runtime: Any, _globals: set[Any], op: bytes, *args: Any) -> Any:
        name = op.decode().lower()
        if args and name in COMMANDS_WITH_SUB:
            name, args = f"{name} {args[0].decode().lower()}", args[1:]
        func, signature = self._name_to_func(name)
        result = self._run_command(func, signature, [_bytes(arg) for arg in args], from_script=True)
        return self._convert_redis_result(lua_runtime, result)

    # -- commands -----------------------------------------------------------------------------------------------------

    def time(self) -> list[bytes]:
        now_us = self.host.now_us()
        return [str(now_us // 1_000_000).encode(), str(now_us % 1_000_000).encode()]

    @command((bytes, bytes))
    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message in the order of the connections: fakeredis keeps them by their address in memory."""
        found = sorted(self._server.subscribers.get(channel, ()), key=FakeSocket.fileno)
        for session in found:
            session.put_response([b"message", channel, message])
        return len(found)

    @command((), (bytes,))
    def info(self, *_: bytes) -> bytes:
        current, replaced = self.host.replication_ids
        role = "master" if self.host.is_master else "slave"
        lines = f"redis_version:7.4.0\r\n# Replication\r\nrole:{role}\r\nmaster_replid:{current}\r\n"
        return f"{lines}master_replid2:{replaced}\r\nconnected_slaves:{self.host.copies()}\r\n".encode()

    @command(())
    def role(self) -> list[Any]:
        return [b"master", 0, []] if self.host.is_master else [b"slave", b"", 0, b"connected", 0]

    @command((bytes, bytes))
    def wait(self, _count: bytes, _timeout_ms: bytes) -> int:
        copies: int = self.host.copies()
        return copies


def _bytes(value: Any) -> bytes:
    return value if type(value) is bytes else f"{value:.17g}".encode()


@cache
def _converted(sig: Signature, count: int) -> list[tuple[int, Any]]:
    """Which of this many arguments of a command are not taken as they are, and their types."""
    types = [*sig.fixed, *(sig.repeat[n % len(sig.repeat)] for n in range(count - len(sig.fixed)))]
    return [(n, kind) for n, kind in enumerate(types) if kind is not bytes]


class Parked:
    """A command that blocks until there is something to return."""

    def __init__(self, session: Session, func: Callable[[bool], Any], shape: Callable[[Any], Any] | None) -> None:
        self.session, self._func, self._shape = session, func, shape
        self.timer: Timer | None = None

    def try_again(self, *, last: bool = False) -> bool:
        """Answer if there is something now, or the time is up."""
        try:
            found = self._func(False)
        except SimpleError as error:
            found, last = None, False
            self.session.put_response(self.session._decode_result(error))
            return True
        if not found and not last:
            return False
        reply = found if self._shape is None else self._shape(found)
        self.session.put_response(self.session._decode_result(reply or None))
        return True
