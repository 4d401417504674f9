"""Event ids: UUIDs of version 7 (RFC 9562), and ids derived from a key."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable


def uuid7(milliseconds: int, chance: Callable[[int], bytes] = os.urandom) -> bytes:
    """Sixteen bytes of a version 7 UUID: 48 bits of time in milliseconds since 1970, then chance.

    A time before 1970 counts as 1970.
    """
    return uuid7s(milliseconds, 1, chance)[0]


def uuid7s(milliseconds: int, count: int, chance: Callable[[int], bytes] = os.urandom) -> list[bytes]:
    """So many of them, ascending, with one call for chance."""
    time, chances = max(milliseconds, 0).to_bytes(6, "big"), chance(10 * count)
    found = []
    for at in range(0, 10 * count, 10):
        version, middle, variant, *_ = raw = chances[at : at + 10]
        found.append(time + bytes((version & 0x0F | 0x70, middle, variant & 0x3F | 0x80)) + raw[3:])
    found.sort()
    return found


def derived(key: str, index: int, tenant: str) -> bytes:
    """The id of the event at `index` of an append with this key: a version 8 UUID, the same every time."""
    text = f"{len(tenant)}:{tenant}{len(key)}:{key}{index}".encode()
    raw = bytearray(hashlib.blake2b(text, digest_size=16, person=b"eventlab key").digest())
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)


def seeded(seed: int | None) -> Callable[[int], bytes]:
    """A source of chance: the system's, or a repeatable one for tests and notebooks."""
    return os.urandom if seed is None else random.Random(seed).randbytes
