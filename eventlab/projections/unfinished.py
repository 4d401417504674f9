"""A rebuild that is not finished: what it has done is kept beside the read models, and found again after a kill.

Parts of a lifted fold are kept by the bucket of their streams; a fold that goes through the log in its order is kept as a
table at a position. Nothing here needs to be safe: a file that is not whole is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from eventlab.replay.lift.scan import Part
from eventlab.store.base import pack, unpack
from eventlab.store.read_models import Parked

#: Seconds that a rebuild takes before anything of it is kept.
PATIENCE: Final = 1.0


class Unfinished:
    """What a rebuild of one read model has done so far, up to the position that it was begun for."""

    def __init__(self, folder: Path | None, advance: Callable[[int], None] | None = None) -> None:
        self._folder, self._advance = folder, advance
        self._open = False
        self._said = 0
        self._parts = 0
        self._lock = threading.Lock()
        self._began = time.monotonic()
        #: Parts that are finished and not written: what takes no longer than this is not worth it.
        self._held: list[tuple[str, pa.Table]] = []
        self.until = 0
        #: Parts that were found.
        self.found = 0

    def begin(self, head: int) -> int:
        """Begin, or go on with what was begun; the position it is for."""
        self.until = head
        if self._folder is None:
            return head
        self._open = True
        plan = self._folder / "plan.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            begun = json.loads(plan.read_text())["until"]
            # What was begun long ago is not worth to be gone on with.
            if isinstance(begun, int) and head // 2 <= begun <= head:
                self.until = begun
                return begun
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            plan.write_text(json.dumps({"until": head}))
        return head

    def end(self) -> None:
        """It is finished: nothing of this is needed any more."""
        if self._open and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def advance_to(self, position: int) -> None:
        """So far it has come."""
        with self._lock:
            more, self._said = position - self._said, max(self._said, position)
        if self._advance is not None and more > 0:
            self._advance(more)

    # -- parts of a lifted fold

    def get(self, part: Part) -> pa.Table | None:
        """The rows of a part; None where it is not finished."""
        self._parts += 1
        found = self._read(self._name(part))
        if found is None:
            return None
        self.found += 1
        self._done()
        return found[0]

    def put(self, part: Part, table: pa.Table) -> None:
        """One more is finished."""
        with self._lock:
            self._held.append((self._name(part), table))
            due = time.monotonic() - self._began >= PATIENCE
            held, self._held = (self._held, []) if due else ([], self._held)
        for name, rows in held:
            self._write(name, rows, ())
        self._done()

    def _name(self, part: Part) -> str:
        # With the position: another rebuild in this folder, begun before or after, may be for another one.
        of = hashlib.blake2b(repr(sorted(part.buckets)).encode(), digest_size=6).hexdigest()
        return f"part-{self.until}-{part.of}-{of}"

    def _done(self) -> None:
        self.advance_to(min(self.until, self._said + self.until // max(self._parts, 1)))

    # -- a fold in the order of the log

    def rows(self) -> tuple[int, pa.Table, tuple[Parked, ...]] | None:
        """The last table that was kept, with its position and what was parked."""
        if not self._open or self._folder is None:
            return None
        for path in sorted(self._folder.glob("at-*.arrow"), reverse=True):
            at = int(path.stem[3:])
            # A rebuild that goes on beside this one may be for a later position.
            found = self._read(path.stem) if at <= self.until else None
            if found is not None:
                self.found += 1
                return at, *found
        return None

    def keep(self, position: int, table: pa.Table, parked: Sequence[Parked]) -> None:
        """Keep a table in the place of the one before."""
        if not self._open or self._folder is None:
            return
        self._write(f"at-{position:019d}", table, parked)
        for path in sorted(self._folder.glob("at-*.arrow"))[:-1]:
            with contextlib.suppress(OSError):
                path.unlink()

    # -- files

    def _write(self, name: str, table: pa.Table, parked: Sequence[Parked]) -> None:
        if not self._open or self._folder is None:
            return
        said = pack([[p.key, p.position, p.stream, p.version, p.type, p.error, p.waiting] for p in parked])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        rows = sink.getvalue()
        path = self._folder / f"{name}.arrow"
        # A disk that is full is no reason to stop: only to begin anew the next time.
        with contextlib.suppress(OSError):
            with open(f"{path}.tmp", "wb") as file:
                file.write(_digest(said, rows) + len(said).to_bytes(8, "big") + said)
                file.write(rows)
            os.replace(f"{path}.tmp", path)

    def _read(self, name: str) -> tuple[pa.Table, tuple[Parked, ...]] | None:
        if not self._open or self._folder is None:
            return None
        try:
            with open(self._folder / f"{name}.arrow", "rb") as file:
                digest, size = file.read(16), int.from_bytes(file.read(8), "big")
                said, rows = file.read(size), file.read()
        except (OSError, OverflowError, MemoryError):
            return None
        if _digest(said, rows) != digest:
            return None
        parked = tuple(Parked(None if key is None else tuple(key), *rest) for key, *rest in unpack(said))
        return pa.ipc.open_stream(rows).read_all(), parked


def _digest(*parts: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()
