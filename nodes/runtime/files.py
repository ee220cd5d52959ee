"""Open files: as many as a node needs, and no more requests than there are files for."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import NamedTuple

# What a request may hold open: its caller, the log server or the store, and the nodes that it asks.
_PER_REQUEST = 6
# What a node holds open by itself: store, log server, feed, listener, and the requests of the reserved threads.
_OWN = 96
# Connections whose request arrives or whose caller has none now.
_IDLE = 1000
_REQUESTS_MIN = 4


class Room(NamedTuple):
    """How many requests may be in progress, and how many connections open, with a limit of ``files``."""

    requests: int
    connections: int
    files: int


def make_room(requests: int) -> Room:
    """Raise the limit of open files to what so many requests need, as far as allowed, and return what there is."""
    wanted = _OWN + _IDLE + requests * _PER_REQUEST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_less(soft, wanted):
        soft = hard if _is_less(hard, wanted) else wanted
        with suppress(OSError, ValueError):  # the system may allow less than the limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return room_for(requests, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def room_for(requests: int, files: int) -> Room:
    """What there is room for within a limit of open files."""
    if not _is_less(files, _OWN + _IDLE + requests * _PER_REQUEST):
        return Room(requests, requests + _IDLE, files)
    idle = files // 4
    found = min(requests, max(_REQUESTS_MIN, (files - _OWN - idle) // _PER_REQUEST))
    return Room(found, found + idle, files)


def _is_less(limit: int, wanted: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < wanted
