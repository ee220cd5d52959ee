"""Reads a report's page."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._in_data = False
        self.feed(text)

    @property
    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_data = dict(attrs).get("id") == "data"

    def handle_endtag(self, _tag: str) -> None:
        self._in_data = False

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data


def require_self_contained(text: str) -> Page:
    """Require that the page sends no request and runs no script, and that each of its figures is a picture."""
    shown = Page(text)
    assert shown.names.count("svg") == shown.names.count("figure")
    for tag, attributes in shown.tags:
        assert tag not in {"link", "img", "iframe", "form", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href"}:
                assert str(value).startswith("#"), (tag, value)
    scripts = [attributes for tag, attributes in shown.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}]
    assert "default-src 'none'" in text
    assert "url(http" not in text
    for drawn in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert ElementTree.fromstring(drawn).attrib["viewBox"]  # noqa: S314 - drawn by us
    return shown
