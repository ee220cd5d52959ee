"""The URL of a log server, and which options it may have."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

_ALLOWED = ("db", "client_name")
_ALLOWED_TLS = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")


def require_options(url: str) -> None:
    """Raise ``ValueError`` for an option that the lab sets itself, or that a connection does not have."""
    parts = urlsplit(url)
    allowed = _ALLOWED + (_ALLOWED_TLS if parts.scheme == "rediss" else ())
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise ValueError(f"the option {name[:100]!r} is not allowed in it; allowed are {', '.join(allowed)}")
