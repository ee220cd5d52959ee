"""A name as one segment of a URL's path."""

from urllib.parse import quote


def segment(name: str) -> str:
    """The name, quoted. Dots too: a client resolves the segments ``.`` and ``..`` before it asks."""
    return quote(name, safe="").replace(".", "%2E")
