"""The options that the URL of a log server can have; no redis is imported here, which would cost each process 11 MB."""

from urllib.parse import parse_qs, urlsplit

_OPTIONS = ("db", "client_name")
_OPTIONS_TLS = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")


def require_options(url: str) -> None:
    """Raise ``ValueError`` for a URL option that the lab sets itself or that connections do not support."""
    parts = urlsplit(url)
    allowed = _OPTIONS + (_OPTIONS_TLS if parts.scheme == "rediss" else ())
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise ValueError(f"the option {name[:100]!r} is not allowed in it; allowed are {', '.join(allowed)}")
