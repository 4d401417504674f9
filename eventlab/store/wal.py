"""The catalog's write-ahead log: whether SQLite will read all of it that was written.

After a crash SQLite reads the frames of the log up to the first one whose checksum is wrong, and forgets the rest. That is
right for what a killed process left half written, and wrong for a byte that changed since: whole commits, acknowledged
ones, would be gone without a word. So the log is looked at before SQLite opens it. A frame's checksum goes on from the one
stored in the frame before it, which tells where the chain breaks and where it holds again.

Proven damage is a broken frame that the change of one word (four bytes) explains, and a whole commit behind the break that
others were written after: SQLite goes on only behind a commit that it knows. A single commit behind a break proves nothing.
It is what a process leaves that is killed, or loses power, before its commit is acknowledged.

The format is described in SQLite's "Database File Format", section 4.
"""

from __future__ import annotations

import fcntl
import functools
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

_MAGIC: Final = 0x377F0682
_HEADER_WORDS: Final = 8
_FRAME_WORDS: Final = 6
#: Where in the shared memory file every connection to the database holds a lock.
_OPEN_LOCK_AT: Final = 128
#: Several words could have been changed.
_AMBIGUOUS: Final = (-1, b"")

Words = np.ndarray[Any, np.dtype[np.uint32]]


@dataclass(frozen=True)
class Unread:
    """What SQLite will not read of a log: from which frame on, how many whole commits, and whether that proves damage.

    `word` says where four bytes must be put back, and to what, for the log to be as it was written, where only one place
    explains it.
    """

    frame: int
    commits: int
    proven: bool
    word: tuple[int, bytes] | None = None


def unread(path: Path) -> Unread | None:
    """The commits in a write-ahead log behind the place where SQLite stops reading it; None when there are none."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(raw) < 4 * (_HEADER_WORDS + _FRAME_WORDS):
        return None
    if _header_holds(raw):
        return _look(raw)
    # Without its header nothing of the log is read.
    mended = {(4 * at, word) for at in range(_HEADER_WORDS) for word in _mended_header(raw, at)}
    whole = [(at, word) for at, word in sorted(mended) if _header_holds(raw[:at] + word + raw[at + 4 :])]
    found = [(_look(raw[:at] + word + raw[at + 4 :], header=True), (at, word)) for at, word in whole]
    lost = [(look.commits, place) for look, place in found if look is not None]
    if not lost:
        return None
    return Unread(1, lost[0][0], proven=True, word=lost[0][1] if len(lost) == 1 else None)


def in_use(path: Path) -> bool:
    """Whether another process has the database of this log open; it has then read the log, and nobody reads it again."""
    try:
        descriptor = os.open(path.with_name(path.name.removesuffix("-wal") + "-shm"), os.O_RDONLY)
    except OSError:
        return False
    try:
        if not sys.platform.startswith("linux"):
            return False
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _OPEN_LOCK_AT, 1, 0)
        held = struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return bool(held[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


# -- checksums -------------------------------------------------------------------------------------------------------------


@functools.cache
def _weights(words: int) -> tuple[Words, Words]:
    """How each of so many words, and the checksum before them, counts in the checksum after them.

    The checksum is a pair; two words x, y make (s, t) to (s + t + x, t + (s + t + x) + y), modulo 2**32. That is linear, so
    the checksum of all frames is a product of two matrices.
    """
    of_words = np.zeros((words, 2), np.uint32)
    power = [[1, 0], [0, 1]]
    for pair in range(words // 2 - 1, -1, -1):
        for row in (0, 1):
            of_words[2 * pair, row] = (power[row][0] + power[row][1]) % 2**32
            of_words[2 * pair + 1, row] = power[row][1]
        power = [[(row[0] + row[1]) % 2**32, (row[0] + 2 * row[1]) % 2**32] for row in power]
    return of_words, np.array(power, np.uint32).T


def _sum(before: Words, words: Words) -> Words:
    of_words, of_before = _weights(words.shape[-1])
    return before @ of_before + words @ of_words


def _order(magic: int) -> str:
    """The byte order in which checksums are computed; what is stored is always big-endian."""
    return ">u4" if magic & 1 else "<u4"


def _header_holds(raw: bytes) -> bool:
    magic, version, page, *_ = struct.unpack(">8I", raw[: 4 * _HEADER_WORDS])
    known = magic & ~1 == _MAGIC and version == 3_007_000
    if not known or page & (page - 1) or not 512 <= page <= 65_536:
        return False
    words = np.frombuffer(raw, _order(magic), 6).astype(np.uint32)
    stored = np.frombuffer(raw, ">u4", 2, 24).astype(np.uint32)
    return bool(np.array_equal(_sum(np.zeros(2, np.uint32), words), stored))


def _mended_header(raw: bytes, at: int) -> list[bytes]:
    """What the word of the header at a place could have been, if the other seven are as they were written."""
    found = []
    for order in ("<u4", ">u4"):
        words = np.frombuffer(raw, order, 6).astype(np.uint32)
        computed = _sum(np.zeros(2, np.uint32), words)
        stored = np.frombuffer(raw, ">u4", 2, 24).astype(np.uint32)
        if at >= 6:
            found.append(computed[at - 6 : at - 5].astype(">u4").tobytes())
        else:
            of_words, _ = _weights(6)
            change = _change(stored - computed, of_words[at : at + 1])[0]
            found.append((words[at : at + 1] + change).astype(order).tobytes())
    return found


def _change(wanted: Words, weights: Words) -> Words:
    """For each word what must be added to it for one half of the checksum to come out right (that whose weight is odd)."""
    odd = (weights[:, 0] & 1).astype(bool)
    weight = np.where(odd, weights[:, 0], weights[:, 1])
    inverse = weight.copy()
    for _ in range(4):
        # Newton's iteration for the inverse modulo a power of two: each step doubles the bits that are right.
        inverse = inverse * (np.uint32(2) - weight * inverse)
    changes: Words = np.where(odd, wanted[0], wanted[1]).astype(np.uint32) * inverse
    return changes


# -- frames ----------------------------------------------------------------------------------------------------------------


def _look(raw: bytes, *, header: bool = False) -> Unread | None:
    """Follow the chain of frames; with `header`, tell of every commit in it, for none will be read."""
    magic, _, page, _, *salts, _, _ = struct.unpack(">8I", raw[: 4 * _HEADER_WORDS])
    width = _FRAME_WORDS + page // 4
    count = (len(raw) // 4 - _HEADER_WORDS) // width
    frames: Words = np.frombuffer(raw, _order(magic), count * width, 4 * _HEADER_WORDS).reshape(count, width)
    heads = np.frombuffer(raw, ">u4", count * width, 4 * _HEADER_WORDS).reshape(count, width)[:, :_FRAME_WORDS]
    heads = heads.astype(np.uint32)
    stored = heads[:, 4:]
    before = np.concatenate([np.frombuffer(raw, ">u4", 2, 24).astype(np.uint32).reshape(1, 2), stored[:-1]])
    covered, of_before = _weights(2 + page // 4)
    of_frame = np.zeros((width, 2), np.uint32)
    of_frame[:2], of_frame[_FRAME_WORDS:] = covered[:2], covered[2:]
    computed = before @ of_before + frames @ of_frame
    follows = (computed == stored).all(1)
    # A frame of an earlier use of the file has other salts, both of them.
    salted = (heads[:, 2:4] == np.array(salts, np.uint32)).sum(1)
    commit = heads[:, 1] > 0
    bad = _first(~(follows & (salted == 2)))
    if header:
        commits = int(commit[:bad].sum())
        return Unread(1, commits, proven=True) if commits else None
    behind = (salted > 0) & (np.arange(count) >= bad)
    if not (commit & behind).any():
        return None
    word = _mended_frame(raw, bad, width, salts, stored[bad], computed[bad], covered)
    end = bad + 1 + _first(~(follows & behind)[bad + 1 :])
    commits = int((commit & behind)[bad:end].sum())
    known = commit[:-1] & behind[:-1] & follows[1:] & behind[1:]
    if word is None and not known.any():
        return Unread(bad + 1, max(commits, 1), proven=False)
    return Unread(bad + 1, max(commits, 1), proven=True, word=word if word != _AMBIGUOUS else None)


def _first(flags: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """The place of the first True, or the end."""
    return int(flags.argmax()) if flags.any() else len(flags)


def _mended_frame(
    raw: bytes, frame: int, width: int, salts: list[int], stored: Words, computed: Words, covered: Words
) -> tuple[int, bytes] | None:
    """The one word of a frame whose change explains that its checksum is wrong: where it is, and what it was."""
    start = 4 * (_HEADER_WORDS + frame * width)
    found = struct.unpack(">6I", raw[start : start + 4 * _FRAME_WORDS])
    if (computed == stored).all():
        at = 2 + [a == b for a, b in zip(found[2:4], salts, strict=True)].index(False)
        return start + 4 * at, struct.pack(">I", salts[at - 2])
    if found[2:4] != tuple(salts):
        return None
    # In its stored checksum, or among the words that it covers.
    candidates = [
        (start + 4 * (4 + half), struct.pack(">I", int(computed[half])))
        for half in (0, 1)
        if computed[half] != stored[half] and computed[1 - half] == stored[1 - half]
    ]
    wanted, order = stored - computed, _order(struct.unpack(">I", raw[:4])[0])
    changes = _change(wanted, covered)
    for word in np.flatnonzero((changes[:, None] * covered == wanted).all(1)).tolist():
        at = start + 4 * (word if word < 2 else word - 2 + _FRAME_WORDS)
        mended = np.frombuffer(raw, order, 1, at).astype(np.uint32) + changes[word]
        candidates.append((at, mended.astype(order).tobytes()))
    if len(candidates) > 1:
        # One of them is it: the weights of words far apart are alike in their last bits.
        return _AMBIGUOUS
    return candidates[0] if candidates else None
