"""The console's files, as any WSGI server can answer with them."""

import mimetypes
from functools import cache
from importlib import resources

from werkzeug.wrappers import Request, Response

INDEX = "index.html"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page(name: str, request: Request) -> Response | None:
    """A file of the console, by its path below ``/console/``; ``None`` if there is none."""
    if name not in _files():
        return None
    response = Response(_files()[name], mimetype=mimetypes.guess_type(name)[0], headers=HEADERS)
    response.add_etag()
    return response.make_conditional(request)


@cache
def _files() -> dict[str, bytes]:
    root = resources.files("nodes.client").joinpath("console")
    files = {file.name: file for file in root.iterdir()}
    files |= {f"vendor/{file.name}": file for file in root.joinpath("vendor").iterdir()}
    return {name: file.read_bytes() for name, file in files.items() if file.is_file()}
