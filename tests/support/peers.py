"""Stub nodes."""

from typing import Any

from nodes.http.peers import Ask, PeerError, Peers, Reply

LAB = "3f9a1c07"
PRIMARY = "http://127.0.0.1:8000"
CONTRACT_ONLY = {"position": "1-7", "version": 7, "epoch": 1}  # docs/bring-your-own.md
GONE = PeerError("http://r2 cannot be reached", sent=False)


def at(version: int, epoch: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "version": version,
        "epoch": epoch,
        "position": f"{epoch}-{version}",
        "data_age_ms": 1.0,
        "acknowledged_position": None,
        **more,
    }


def replicas(*names: str) -> dict[str, Any]:
    return {
        "lab": LAB,
        "replicas": [
            {
                "replica_id": name,
                "url": f"http://{name}",
                "lag_ms": 33.0,
                "order": "log",
                "diverged": False,
                "faults": [],
                "resyncing": "",
                "proven": True,
                "acknowledged_version": 4,
                "ack_lag_ms": 44.0,
                "pending": 3,
                "waiting": 2,
                "applied_unacknowledged": 1,
            }
            for name in names
        ],
    }


class StubPeers(Peers):
    """Nodes with given answers: by path, a body, a status with a body, a reply, an error, or a list of these."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(8, lambda: 10.0)
        self.answers = answers
        self.asked: list[Ask] = []

    def ask(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        name = ask.url.removeprefix("http://").replace("127.0.0.1:8000", "primary")
        found = self.answers[name]
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, PeerError):
            raise found
        if isinstance(found, Reply):
            return found
        status, body = found if isinstance(found, tuple) else (200, found)
        return Reply(status, body, 10.25)
