"""``lab fault``: what is wrong with the replicas on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from lab import state
from lab.errors import LabError
from lab.nodes_api import NodeUnreachable, call


class Faults:
    """The faults of a running lab, through its client service. Methods raise ``LabError``."""

    def __init__(self, data_dir: Path, client_url: str | None) -> None:
        """``client_url``: where the lab does not run from the data directory."""
        self._url = client_url or state.client_url(data_dir)

    def show(self) -> dict[str, Any]:
        """What each replica answers."""
        found: dict[str, Any] = self._ask("GET", "/faults")["replicas"]
        return found

    def begin(self, replica: str, fault: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Begin one."""
        return self._ask("POST", "/faults", {"replica": replica, "fault": fault, **parameters})

    def end(self, replica: str | None, fault: str | None) -> dict[str, list[str]]:
        """End one, all of a replica, or all; what was ended, by replica."""
        if replica is None:
            found = self._ask("POST", "/faults/reset")["replicas"]
            return {name: answer.get("ended", []) for name, answer in found.items()}
        return {replica: self._ask("DELETE", f"/faults/{replica}" + (f"/{fault}" if fault else ""))["ended"]}

    def resync(self, replica: str) -> None:
        """Have a replica take a snapshot."""
        self._ask("POST", "/resync", {"replica": replica})

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            status, found = call(method, f"{self._url}{path}", body)
        except NodeUnreachable as error:
            raise LabError(f"{error}; `lab status` shows a lab, `lab up` starts one") from None
        if status >= 400:
            raise LabError(str(found.get("detail")))
        return found


def parameters(given: tuple[str, ...]) -> dict[str, Any]:
    """``name=value`` each. Raises ``LabError`` for anything else."""
    found = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise LabError(f"a parameter looks like duration_ms=5000, not {one!r}")
        try:
            found[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise LabError(f"{one!r} has no value that can be read") from None
    return found


def table(found: dict[str, Any]) -> Table:
    """What is in force, one fault a line."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("replica", "fault", "parameters", "since", "until"):
        shown.add_column(column)
    for replica, answer in found.items():
        if "faults" not in answer:
            shown.add_row(replica, str(answer.get("error") or answer.get("detail")))
        for fault in answer.get("faults", []):
            values = ", ".join(f"{name}={value}" for name, value in fault["parameters"].items())
            shown.add_row(
                replica, fault["fault"], values, _time(fault["since"]), _time(fault["until"]) or "it is ended"
            )
    return shown


def available(found: dict[str, Any]) -> list[str]:
    """The names of what could be begun."""
    return sorted({name for answer in found.values() for name in answer.get("available", {})})


def _time(text: str | None) -> str:
    return "" if text is None else text[11:19]
