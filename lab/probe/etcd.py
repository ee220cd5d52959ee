"""A member of an etcd cluster (3.4 or later), by its JSON gateway. Reads are serializable: of what the member has."""

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import urllib3

from lab.probe.target import PREFIX, Description, NotNow, Settings, Shown, TargetError

_MARK = f"{PREFIX}/"  # the key that says that a probe created those that follow it
_END = f"{PREFIX}0"  # the first key after those that start with the mark
_MARKER = "created by lab probe"
_DIGITS = 16  # etcd compares bytes, and numbers of equal length compare as numbers
_LEASE_SECONDS = 3600  # after its last renewal, if a run could not remove the keys
_RENEWAL_SECONDS = 600.0
_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
_BYTES_MAX = 4 * 2**20  # of an answer
_SHOWN_MAX = 200  # characters of an error
_DENIED, _UNAUTHENTICATED = 7, 16  # codes of gRPC
_NOT_NOW = {1, 4, 10, 14}  # canceled, deadline exceeded, aborted, unavailable
_GRANT = f"etcdctl role grant-permission ROLE readwrite --prefix=true {_MARK}"
_WARNINGS = (
    "The probe's reads are serializable; those of clients are linearizable by default, and never stale.",
    "A follower acknowledges a write once it has applied it itself, which is later than the leader.",
)


class _Refused(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Node:
    def __init__(self, url: str, user: str | None, password: str | None, now: Callable[[], float]) -> None:
        self.name = urlsplit(url).netloc
        self._url, self._user, self._password, self._now = url, user, password, now
        self._pool = urllib3.PoolManager(retries=False, maxsize=1, timeout=_TIMEOUT)
        self._token = ""
        self._term = ""  # in which the role was last asked for
        self._leads = False
        self._wrote_as_leader: bool | None = None
        self._lease: str | None = None
        self._renewed = now()

    def describe(self) -> Description:
        self._require("maintenance/status", {})
        missing = () if self._may_write() else (_GRANT,)
        put = f"txn: put {_MARK}<key>, unless it has a higher number"
        others = (f"lease grant; put {_MARK}", f"deleterange {_MARK} to {_END}; lease revoke")
        return Description((f"range {_MARK}<keys>, serializable; status", put, *others), missing)

    def settings(self) -> Settings:
        found = self._require("maintenance/status", {})
        leads = _leads(found)
        values = {"version": str(found.get("version")), "role": "leader" if leads else "follower"}
        return Settings(found["header"]["cluster_id"], values, () if leads else _WARNINGS)

    def prepare(self) -> None:
        self._lease = self._found_lease()
        if self._lease is None:
            self._lease = self._require("lease/grant", {"TTL": _LEASE_SECONDS})["ID"]
            self._require("kv/put", {**_pair(_MARK, _MARKER), "lease": self._lease})

    def write(self, key: str, number: int) -> None:
        lease = self._renewed_lease()
        pair = _pair(_MARK + key, f"{number:0{_DIGITS}}")
        is_higher = {**pair, "target": "VALUE", "result": "GREATER"}
        put = {"request_put": {**pair, "lease": lease}}
        found = self._ask("kv/txn", {"compare": [is_higher], "failure": [put]})
        leads = self._is_leader(found["header"])
        if self._wrote_as_leader is None:
            self._wrote_as_leader = leads
        if leads != self._wrote_as_leader:
            raise TargetError(f"{self.name}: the cluster elected another leader during the run")

    def read(self, keys: Sequence[str]) -> Shown:
        span = {"key": _encoded(_MARK + min(keys)), "range_end": _encoded(f"{_MARK}{max(keys)}\0")}
        found = self._ask("kv/range", {**span, "serializable": True})
        shown = {_decoded(pair["key"]).removeprefix(_MARK): pair["value"] for pair in found.get("kvs", ())}
        numbers = {key: int(_decoded(shown[key])) for key in keys if key in shown}
        return Shown(numbers, is_replica=not self._is_leader(found["header"]))

    def remove(self) -> None:
        if (lease := self._found_lease()) is not None:
            self._require("kv/deleterange", _prefix())
            self._require("lease/revoke", {"ID": lease})
            self._lease = None

    def close(self) -> None:
        self._pool.clear()

    def _found_lease(self) -> str | None:
        """Return the lease of the keys that a probe created. Raises ``TargetError`` if something else did."""
        found = self._require("kv/range", {**_prefix(), "limit": 1}).get("kvs", [])
        if not found:
            return None
        if found[0]["key"] != _encoded(_MARK) or found[0].get("value") != _encoded(_MARKER):
            raise TargetError(f"{self.name}: keys exist below {_MARK}, and lab probe did not create them")
        return str(found[0].get("lease", "0"))

    def _renewed_lease(self) -> str:
        if self._lease is None:
            self._lease = self._found_lease()
        if self._lease is None:
            raise TargetError(f"{self.name}: the key {_MARK} does not exist; it was removed during the run")
        if self._now() - self._renewed > _RENEWAL_SECONDS:
            self._renewed = self._now()
            self._ask("lease/keepalive", {"ID": self._lease})
        return self._lease

    def _is_leader(self, header: dict[str, Any]) -> bool:
        """Whether the member is the leader, which can only change with the term."""
        if header["raft_term"] != self._term:
            status = self._ask("maintenance/status", {})
            self._term, self._leads = status["header"]["raft_term"], _leads(status)
        return self._leads

    def _may_write(self) -> bool:
        """Send a write whose condition cannot be met, but for which the right is required."""
        never = {"key": _encoded(_MARK), "target": "CREATE", "result": "LESS", "create_revision": 0}
        try:
            self._post("kv/txn", {"compare": [never], "success": [{"request_delete_range": _prefix()}]})
        except _Refused as error:
            if error.code == _DENIED:
                return False
            raise self._error(error) from None
        return True

    # -- asking ------------------------------------------------------------------------------------------------------

    def _require(self, path: str, body: dict[str, Any]) -> Any:
        """``_ask``, if nothing is tried again."""
        try:
            return self._ask(path, body)
        except NotNow as error:
            raise TargetError(f"{self.name}: {error}") from None

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer. Raises ``NotNow``, or ``TargetError`` if repeating cannot help."""
        try:
            return self._post(path, body)
        except _Refused as error:
            raise self._error(error) from None

    def _error(self, error: _Refused) -> Exception:
        if error.code == _DENIED:
            return TargetError(f"{self.name}: user {self._user} lacks a right: {_GRANT}")
        return NotNow(str(error)) if error.code in _NOT_NOW else TargetError(f"{self.name}: {error}")

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """Log in if needed, and again if the token has expired."""
        if self._user is None:
            return self._send(path, body)
        if self._token:
            try:
                return self._send(path, body)
            except _Refused as error:
                if error.code != _UNAUTHENTICATED:
                    raise
        self._token = ""
        self._token = self._send("auth/authenticate", {"name": self._user, "password": self._password or ""})["token"]
        return self._send(path, body)

    def _send(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": self._token} if self._token else {}
        try:
            answer = self._pool.request(
                "POST", f"{self._url}/v3/{path}", json=body, headers=headers, redirect=False, preload_content=False
            )
            raw = answer.read(_BYTES_MAX + 1)
            answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise NotNow(f"no answer: {error}") from error
        try:
            found = json.loads(raw)
            code, text = (found["code"], found["error"]) if "error" in found else (0, "")
        except (ValueError, TypeError, LookupError):
            raise TargetError(f"{self.name} does not answer as etcd 3.4 or later does") from None
        if code:
            raise _Refused(int(code), str(text)[:_SHOWN_MAX])
        return found


def _leads(status: dict[str, Any]) -> bool:
    return bool(status["header"]["member_id"] == status.get("leader"))


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return b64decode(text).decode(errors="replace")


def _pair(key: str, value: str) -> dict[str, str]:
    return {"key": _encoded(key), "value": _encoded(value)}


def _prefix() -> dict[str, str]:
    return {"key": _encoded(_MARK), "range_end": _encoded(_END)}


def node(address: str, password: str | None) -> Node:
    """Return a member for an address such as ``https://user@host:2379``."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise TargetError("not an address such as http://host:2379")
    if parts.password is not None:
        raise TargetError("an address with a password is visible to others; use LAB_PROBE_PASSWORD")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Node(f"{parts.scheme}://{host}:{port or 2379}", parts.username, password, time.monotonic)
