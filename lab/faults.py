"""``lab fault``: what is wrong with the replicas on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from lab.client import NodeUnreachable, call
from lab.errors import LabError
from lab.local import state
from nodes.http.peers import segment
from nodes.replica.faults import FAULTS

_SHOWN_MAX = 100


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

    def end(self, replica: str | None, fault: str | None) -> dict[str, dict[str, Any]]:
        """End one, all of a replica, or all; what each replica has ``ended``, or its ``error``."""
        if replica is None:
            found: dict[str, dict[str, Any]] = self._ask("POST", "/faults/reset")["replicas"]
            return found
        path = "".join(f"/{segment(name)}" for name in (replica, fault) if name is not None)
        return {replica: self._ask("DELETE", f"/faults{path}")}

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


def parameters(fault: str, given: tuple[str, ...]) -> dict[str, Any]:
    """``name=value`` each, read as what the fault's parameter is. Raises ``LabError``."""
    if fault not in FAULTS:
        raise LabError(f"unknown fault {fault[:_SHOWN_MAX]!r}; choose from {', '.join(sorted(FAULTS))}")
    texts: dict[str, str] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name or name in texts:
            raise LabError(f"a parameter looks like duration_ms=5000, each name once, not {one[:_SHOWN_MAX]!r}")
        texts[name] = text
    try:
        found = FAULTS[fault].model_validate_strings({"fault": fault, **texts}, strict=False)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or fault
        raise LabError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
    return found.model_dump(mode="json", exclude={"fault"}, exclude_unset=True)


def table(found: dict[str, Any]) -> Table:
    """What is in force, one fault a line."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("replica", "fault", "parameters", "since", "until"):
        shown.add_column(column)
    for replica, answer in found.items():
        if "faults" not in answer:
            shown.add_row(*map(Text, (replica, str(answer.get("error")))))
        for fault in answer.get("faults", []):
            values = ", ".join(f"{name}={value}" for name, value in fault["parameters"].items())
            times = (_time(fault["since"]), _time(fault["until"]) or "it is ended")
            shown.add_row(*map(Text, (replica, fault["fault"], values, *times)))
    return shown


def available(found: dict[str, Any]) -> list[str]:
    """The names of what could be begun."""
    return sorted({name for answer in found.values() for name in answer.get("available", {})})


def _time(text: str | None) -> str:
    return "" if text is None else text[11:19]
