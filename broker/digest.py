"""The digest of a store's content: equal content ⇔ equal digest.

Each key contributes the SHA-1 of its write id, key and value; the digest is the sum of the contributions modulo 2^160.
A sum does not depend on order and can be kept up to date per write, which is how the primary's script keeps its own
(Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997, call it AdHash). It finds accidents, not
attacks: it does not protect against values that were chosen to collide.
"""

import hashlib
from collections.abc import Iterable

_MODULUS = 2**160
EMPTY = f"{0:040x}"


def contribution(write_id: str, key: str, value: str) -> bytes:
    """Return what one key adds to the digest: 20 bytes."""
    raw_key = key.encode()
    text = b"%b:%d:%b%b" % (write_id.encode(), len(raw_key), raw_key, value.encode())
    return hashlib.sha1(text, usedforsecurity=False).digest()


def digest(items: Iterable[tuple[str, str, str]]) -> tuple[int, str]:
    """Return the number of ``(write id, key, value)`` items, and their digest as 40 hexadecimal digits."""
    count = total = 0
    for count, item in enumerate(items, 1):  # noqa: B007 - the last is their number
        total += int.from_bytes(contribution(*item), "big")
    return count, f"{total % _MODULUS:040x}"
