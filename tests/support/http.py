"""Requests to real nodes, and a server in place of one."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

POOL = urllib3.PoolManager(retries=False, maxsize=64, timeout=urllib3.Timeout(connect=2, read=70))


def ask(method: str, url: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Return status and JSON body. Raises ``urllib3.exceptions.HTTPError``."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    answer = POOL.request(method, url, body=raw, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return answer.status, answer.json()


def get(url: str) -> dict[str, Any]:
    """Return the body of an answer, which must be a 200."""
    return _ok(*ask("GET", url))


def post(url: str, body: Any = None) -> dict[str, Any]:
    """Return the body of an answer, which must be a 200."""
    return _ok(*ask("POST", url, body))


def _ok(status: int, body: dict[str, Any]) -> dict[str, Any]:
    assert status == 200, body
    return body


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], tuple[int, bytes]], port: int = 0) -> Iterator[str]:
    """A server that answers each request with the status and body that the function returns; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - as the library names it

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
