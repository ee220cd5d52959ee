"""The console: the files of a page, as they are in ``console/``, and what a browser may do with them."""

from __future__ import annotations

import mimetypes
from importlib import resources

from flask import Flask, Response, request

from nodes.http import guard
from nodes.http.problem import Problem

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_pages(app: Flask) -> None:
    """Serve the page at ``/``, and its parts below ``/console/``. Nothing else than these files can be asked for."""
    files = _files()

    def serve(name: str) -> Response:
        if name not in files:
            raise Problem(404, "no-such-page", "No such page", f"There is no {name[:100]!r} here.")
        response = Response(files[name], mimetype=mimetypes.guess_type(name)[0], headers=_HEADERS)
        response.add_etag()
        return response.make_conditional(request)  # type: ignore[return-value]

    app.add_url_rule("/", "console", lambda: serve("index.html"), methods=["GET"])
    app.add_url_rule("/console/<path:name>", "console file", serve, methods=["GET"])
    for endpoint in ("console", "console file"):
        guard.declare(app, endpoint, admin=False)


def _files() -> dict[str, bytes]:
    root = resources.files("nodes.client").joinpath("console")
    found = {}
    for folder in (root, root.joinpath("vendor")):
        for file in folder.iterdir():
            if file.is_file():
                name = file.name if folder == root else f"vendor/{file.name}"
                found[name] = file.read_bytes()
    return found
