"""The console: the files in ``console/``, and what a browser may do with them."""

from __future__ import annotations

from importlib import resources

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def files() -> dict[str, bytes]:
    root = resources.files("nodes.client").joinpath("console")
    found = {file.name: file for file in root.iterdir()}
    found |= {f"vendor/{file.name}": file for file in root.joinpath("vendor").iterdir()}
    return {name: file.read_bytes() for name, file in found.items() if file.is_file()}
