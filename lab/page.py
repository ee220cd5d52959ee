"""The console without a lab: its files and a recording, on a port of this machine."""

from typing import Any

from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_host

from nodes.client import pages

_HOST = "127.0.0.1"
_TRUSTED = (_HOST, "localhost")  # with any other name, a foreign web page could read the recording
_FILES = "/console/"


class _Handler(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Log nothing."""


def server(recording: bytes) -> BaseWSGIServer:
    """A server on a free port of this machine, for ``serve_forever``, which ends with Ctrl-C."""

    @Request.application
    def answer(request: Request) -> Response:
        get_host(request.environ, _TRUSTED)
        path = request.path
        if request.method not in {"GET", "HEAD"}:
            raise MethodNotAllowed(["GET", "HEAD"])
        if path == "/recording":
            return Response(recording, mimetype="application/jsonl", headers=pages.HEADERS)
        found = pages.page(pages.INDEX if path == "/" else path.removeprefix(_FILES), request)
        if found is None or not (path == "/" or path.startswith(_FILES)):
            raise NotFound
        return found

    return make_server(_HOST, 0, answer, threaded=True, request_handler=_Handler)
