"""Event ids: UUIDs of version 7 (RFC 9562), and ids derived from a key."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from typing import Final

#: Ids that follow on one another differ in their last 62 bits, which chance alone decides.
_COUNTED: Final = 1 << 62


def uuid7(milliseconds: int, chance: Callable[[int], bytes] = os.urandom) -> bytes:
    """Sixteen bytes of a version 7 UUID: 48 bits of time in milliseconds since 1970, then chance.

    A time before 1970 counts as 1970.
    """
    return uuid7s(milliseconds, 1, chance)[0]


def uuid7s(milliseconds: int, count: int, chance: Callable[[int], bytes] = os.urandom) -> list[bytes]:
    """So many of them, each one more than the one before it (RFC 9562, § 6.2, method 2): a store keeps them as one run."""
    version, middle, variant, *rest = chance(10)
    first = bytes((version & 0x0F | 0x70, middle, variant & 0x3F | 0x80, *rest))
    return _run(max(milliseconds, 0).to_bytes(6, "big") + first, count)


def _run(first: bytes, count: int) -> list[bytes]:
    number = int.from_bytes(first, "big")
    if number % _COUNTED + count > _COUNTED:
        fixed, counted = number - number % _COUNTED, number % _COUNTED
        return [(fixed + (counted + at) % _COUNTED).to_bytes(16, "big") for at in range(count)]
    return [at.to_bytes(16, "big") for at in range(number, number + count)]


def derived(key: str, count: int, tenant: str, *, of: bytes = b"eventlab key") -> list[bytes]:
    """The ids of the events of an append with this key, the same every time: a version 8 UUID, and those that follow on it.

    `of` says what the key is one of, where it is not that of an append.
    """
    text = f"{len(tenant)}:{tenant}{len(key)}:{key}0".encode()
    raw = bytearray(hashlib.blake2b(text, digest_size=16, person=of).digest())
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return _run(bytes(raw), count)


def seeded(seed: int | None) -> Callable[[int], bytes]:
    """A source of chance: the system's, or a repeatable one for tests and notebooks."""
    return os.urandom if seed is None else random.Random(seed).randbytes
