"""Time formatting: the log's microseconds as text, and spans in milliseconds."""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(at_us: int | None) -> str | None:
    """Microseconds since 1970 as RFC 3339 in UTC, ``2026-11-23T13:46:00.123456Z``; ``None`` for ``None``."""
    if at_us is None:
        return None
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def wall_timestamp() -> str:
    return str(timestamp(time.time_ns() // 1000))


def ms(span_us: float) -> float:
    return round(span_us / 1000, 3)
