"""The log servers of a running lab: which one is master, what each does, and how redis-cli reaches the master."""

import shlex
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker import address
from broker.address import NotLocated
from lab.local.state import LabState, NodeState

OK = "ok"
_ANSWER_SECONDS = 2.0
_TLS = {"ssl_ca_certs": "--cacert", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}


def master(redis_url: str) -> str | None:
    """Return the HOST:PORT, or path, of the server that takes writes now; ``None`` if it cannot be found."""
    found = address.parse(redis_url)
    try:
        server = found.locate()
    except NotLocated:
        return None
    parts = urlsplit(found.url)
    return str(server) if server is not None else parts.netloc.rpartition("@")[2] or parts.path


def name_of(server: str | None, running: LabState) -> str | None:
    """Return the id of the lab's own log server at this address, or the address."""
    return next((node.id for node in running.nodes if urlsplit(node.url).netloc == server), server)


def look(node: NodeState, running: LabState, master: str | None) -> dict[str, Any]:
    """Return the health and the role of a log server or Sentinel, by its own word and that of the Sentinels."""
    parts = urlsplit(node.url)
    client: Any = redis.Redis(
        host=str(parts.hostname),
        port=int(parts.port or 0),
        password=urlsplit(running.redis_url).password,
        socket_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=True,
    )
    with client:
        try:
            if node.role == "sentinel":
                client.execute_command("SENTINEL", "CKQUORUM", running.namespace)
                return {"health": OK}
            found = client.execute_command("ROLE")
        except redis.ResponseError as error:
            return {"health": str(error)}
        except redis.RedisError:
            return {"health": "does not answer"}
    if found[0] == "master":
        is_master = master in {None, parts.netloc}
        return {"health": OK if is_master else "takes writes, but is not the master any more", "log_role": "master"}
    state = found[3]
    return {"health": OK if state == "connected" else f"does not follow the master: {state}", "log_role": "replica"}


def redis_cli(redis_url: str, *, with_password: bool) -> str:
    """Return the start of a command line that reaches the server which takes writes now."""
    found = address.parse(redis_url)
    parts, server = urlsplit(found.url), master(redis_url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    tls = [word for name, option in _TLS.items() if name in options for word in (option, options[name])]
    login = parts.netloc.rpartition("@")[0]
    if parts.scheme == "unix":
        words = ["-s", parts.path, "-n", options.get("db", "0")]
    else:
        words = ["-u", f"{parts.scheme}://{f'{login}@' if with_password else ''}{server or 'MASTER'}{parts.path}"]
    if with_password:
        words.insert(0, "--no-auth-warning")
    elif user := login.partition(":")[0]:
        words += ["--user", user]
    secret = "REDISCLI_AUTH=PASSWORD " if login and not with_password else ""
    return f"{secret}redis-cli {shlex.join(words + tls)}"
