"""The digest of a store's content: equal content ⇔ equal digest.

Each key contributes the SHA-1 of its write id, key and value; the digest is the sum of the contributions modulo 2^160.
A sum does not depend on order and can be kept up to date per write, which is how the primary's script keeps its own
(Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997, call it AdHash). It finds accidents, not
attacks: it is not a defence against somebody who chooses values to collide.
"""

import hashlib
from collections.abc import Iterable

_MODULUS = 2**160
EMPTY = f"{0:040x}"


def contribution(write_id: str, key: str, value: str) -> bytes:
    """What one key adds to the digest: 20 bytes."""
    raw_key = key.encode()
    text = b"%b:%d:%b%b" % (write_id.encode(), len(raw_key), raw_key, value.encode())
    return hashlib.sha1(text, usedforsecurity=False).digest()


def digest(items: Iterable[tuple[str, str, str]]) -> tuple[int, str]:
    """Count and digest of ``(write id, key, value)`` items: the number of keys, and 40 hexadecimal digits."""
    total = 0
    count = 0
    for write_id, key, value in items:
        total += int.from_bytes(contribution(write_id, key, value), "big")
        count += 1
    return count, f"{total % _MODULUS:040x}"
