"""The digest of a store's content: equal content ⇔ equal digest.

Each key contributes the SHA-1 of its version, key and value; the digest is the sum of the contributions modulo 2^160.
A sum does not depend on order and can be kept up to date per write, which is how the primary's script keeps its own
(Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997, call it AdHash). It finds accidents, not
attacks: it is not a defence against somebody who chooses values to collide.
"""

import hashlib
from collections.abc import Iterable

_MODULUS = 2**160
EMPTY = f"{0:040x}"


def digest(items: Iterable[tuple[str, str, int]]) -> tuple[int, str]:
    """Count and digest of ``(key, value, version)`` items: the number of keys, and 40 hexadecimal digits."""
    total = 0
    count = 0
    for key, value, version in items:
        raw_key = key.encode()
        text = b"%d:%d:%b%b" % (version, len(raw_key), raw_key, value.encode())
        total += int.from_bytes(hashlib.sha1(text, usedforsecurity=False).digest(), "big")
        count += 1
    return count, f"{total % _MODULUS:040x}"
