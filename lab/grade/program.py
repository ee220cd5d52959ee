"""The program that is graded, as a supervisor would run it: started, killed, stopped, and kept within its limits."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lab.grade import keeper
from lab.grade.life import Life, Limits, Misbehaved
from lab.local.processes import ending

__all__ = ["Misbehaved", "Program", "environment_of"]
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02
_EVERYWHERE = {"0.0.0.0", "::"}
_HOST = "127.0.0.1"


class Program:
    """Runs in the caller's directory, so that paths in the command keep their meaning. Not thread-safe.

    All processes that it starts are its own, and are gone after ``kill``, ``stop`` and ``close``, and when this process
    has ended in any way. One that exceeds a limit is killed at once; the next call raises ``Misbehaved``.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        monotonic: Callable[[], float] = time.monotonic,
        stop_seconds: float = _STOP_SECONDS,
    ) -> None:
        """``environment``: the variables of the contract, ``LAB_…``."""
        self._command = [_resolved(command), *command[1:]]
        self._environment = environment_of(os.environ, environment)
        self._log = log
        self._limits = limits
        self._monotonic = monotonic
        self._stop_seconds = stop_seconds
        self._life = self._new_life()

    @property
    def pid(self) -> int | None:
        """Of the main process, while it runs."""
        return self._life.pid if self._life.ended is None else None

    @property
    def ended(self) -> int | None:
        """The exit status of the main process since it was last started; negative for a signal."""
        return self._life.ended

    def start(self) -> None:
        """Start the program, after what is left of its last run has ended. Raises ``Misbehaved``."""
        if self.ended is not None:
            self._await_rest()
        self.kill()
        self._life = self._new_life()
        try:
            self._life.start(self._command, self._environment)
        except OSError as error:
            hint = (
                "; a script must start with a line such as #!/bin/sh" if error.strerror == "Exec format error" else ""
            )
            raise Misbehaved(f"{self._command[0]} cannot be started: {error.strerror}{hint}") from None

    def kill(self) -> None:
        """``kill -9`` to every process; return when none is left."""
        self._life.kill()

    def stop(self) -> None:
        """End the program with SIGTERM. Raises ``Misbehaved`` if it ignores the signal, or leaves processes behind."""
        try:
            if self.pid is not None:
                self.resume()
                with suppress(OSError):  # it has just ended
                    os.killpg(self.pid, signal.SIGTERM)
                if not self._life.over.wait(self._stop_seconds):
                    raise self._misbehaved(f"ignored SIGTERM for {self._stop_seconds:g} s")
            self._await_rest()
        finally:
            self.kill()

    def close(self) -> None:
        self.kill()

    def check(self) -> None:
        """Raise ``Misbehaved`` if the program has exceeded a limit."""
        if self._life.fault:
            raise Misbehaved(self._life.fault)

    def wait_until_listening(self, port: int, timeout_seconds: float) -> None:
        """Return when the program listens on the port of 127.0.0.1. Raises ``Misbehaved``."""
        deadline = self._monotonic() + timeout_seconds
        while not _includes(found := self._life.listening(), port):
            self.check()
            if self.ended is not None:
                raise self._misbehaved(f"ended ({ending(self.ended)}) before it listened on port {port}")
            if self._monotonic() > deadline:
                raise self._misbehaved(_silence(found, port, timeout_seconds))
            self._life.over.wait(_POLL_SECONDS)

    def suspend(self) -> None:
        """Make every process hang, with SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        keeper.send(self._life.processes(), number)

    def _await_rest(self) -> None:
        while not self._life.fault and self._life.processes():
            self._life.gone.wait(_POLL_SECONDS)
        self.check()

    def _misbehaved(self, what: str) -> Misbehaved:
        return Misbehaved(f"the program {what}; {self._life.last_words()}")

    def _new_life(self) -> Life:
        return Life(self._log, self._limits, self._monotonic)


def environment_of(caller: Mapping[str, str], contract: Mapping[str, str]) -> dict[str, str]:
    """The program's environment: the caller's, with no other variable of the lab than the contract's.

    Temporary files, and what Python compiles, stay out of other directories than the program's own.
    """
    kept = {name: value for name, value in caller.items() if not name.startswith("LAB_")}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": contract["LAB_DATA_DIR"], **contract}


def _resolved(command: Sequence[str]) -> str:
    """Return the path of the command. Raises ``Misbehaved``."""
    name = command[0] if command else ""
    if (found := shutil.which(name)) is not None:
        return found
    path = Path(name)
    if name and path.is_dir():
        raise Misbehaved(f"{name} is a directory, not a command")
    if name and os.access(path, os.X_OK):
        raise Misbehaved(f"{name} is not in PATH; write ./{name} for the file in this directory")
    if name and path.exists():
        raise Misbehaved(f"{name} is not executable; run `chmod +x {name}`, or write its interpreter before it")
    raise Misbehaved(f"command not found: {name or 'it is empty'}")


def _includes(listening: set[tuple[str, int]], port: int) -> bool:
    return any((host, port) in listening for host in {_HOST, *_EVERYWHERE})


def _silence(listening: set[tuple[str, int]], port: int, timeout_seconds: float) -> str:
    wanted = f"{_HOST}:{port}, the port in LAB_PORT,"
    if not listening:
        return f"did not listen on {wanted} within {timeout_seconds:g} s"
    found = ", ".join(
        f"[{host}]:{other}" if ":" in host else f"{host}:{other}" for host, other in sorted(listening)[:3]
    )
    return f"listens on {found}, but not on {wanted} within {timeout_seconds:g} s"
