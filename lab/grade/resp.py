"""The commands in what a client sends to a log server: read as it arrives, and kept only as far as needed."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from broker.position import Position

_ARGUMENTS_MAX = 100_000  # of one command; further ones are left out
_ARGUMENT_BYTES_MAX = 512  # a longer one, such as a value, is given as b""
_HEADER_BYTES_MAX = 32
_KEPT = {b"XACK", b"MULTI", b"EXEC", b"DISCARD"}  # of other commands only the name

Command = list[bytes]


class Commands:
    """Reads RESP arrays of bulk strings. Inline commands are skipped, and so is all that follows a wrong header."""

    def __init__(self) -> None:
        self._header = b""
        self._missing = 0  # arguments of the current command
        self._bulk: bytearray | None = None  # the current argument
        self._bulk_left = 0  # its bytes to come, with the line break after it
        self._bulk_size = 0
        self._arguments: Command = []
        self._is_lost = False

    def feed(self, data: bytes) -> Iterator[tuple[int, Command]]:
        """Yield each command that is complete with this data, and the index of the first byte after it."""
        at = 0
        while at < len(data) and not self._is_lost:
            at = self._read_bulk(data, at) if self._bulk is not None else self._read_header(data, at)
            if self._arguments and self._bulk is None and self._missing == 0:
                yield at, self._arguments
                self._arguments = []

    def _read_bulk(self, data: bytes, at: int) -> int:
        part = data[at : at + self._bulk_left]
        self._bulk_left -= len(part)
        if self._bulk is not None and self._bulk_size <= _ARGUMENT_BYTES_MAX:
            self._bulk += part
        if self._bulk_left == 0:
            self._end_bulk()
        return at + len(part)

    def _end_bulk(self) -> None:
        argument = bytes(self._bulk or b"")[:-2]
        self._bulk = None
        self._missing -= 1
        if not self._arguments:
            self._arguments = [argument.upper()]
        elif self._arguments[0] in _KEPT and len(self._arguments) < _ARGUMENTS_MAX:
            self._arguments.append(argument)

    def _read_header(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1
        # Of an inline command, which can be long, only the first byte is needed.
        self._header = (self._header + data[at : min(end or len(data), at + _HEADER_BYTES_MAX)])[:_HEADER_BYTES_MAX]
        if end == 0:
            return len(data)
        header, self._header = self._header, b""
        if self._missing or header.startswith(b"*"):
            self._take(header)
        return end

    def _take(self, header: bytes) -> None:
        kind, number = header[:1], header[1:].strip()
        if kind != (b"$" if self._missing else b"*") or not number.isdigit():
            self._is_lost = True
        elif kind == b"*":
            self._missing = int(number)
        else:
            self._bulk, self._bulk_size = bytearray(), int(number)
            self._bulk_left = self._bulk_size + 2


class Acknowledgements:
    """The IDs that a connection's commands acknowledge on one stream: those in MULTI at their EXEC."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._queued: list[bytes] | None = None

    def of(self, command: Command) -> list[bytes]:
        name = command[0]
        queued = self._queued
        if name == b"MULTI":
            self._queued = []
        elif name in (b"EXEC", b"DISCARD"):
            self._queued = None
            return queued or [] if name == b"EXEC" else []
        elif name == b"XACK" and command[1:2] == [self._key]:
            if queued is None:
                return command[3:]
            queued += command[3 : 3 + max(0, _ARGUMENTS_MAX - len(queued))]
        return []


def positions(names: Iterable[bytes]) -> list[Position]:
    found = []
    for name in names:
        with suppress(ValueError):  # not an ID; the log server refuses it
            found.append(Position.parse(name.decode(errors="replace")))
    return found
