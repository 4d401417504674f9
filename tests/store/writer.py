"""A process that writes to a store, and says on stdout what was acknowledged: one JSON object a line."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from eventlab.errors import Conflict
from eventlab.store.base import Draft
from eventlab.store.disk import DiskStore, open_store
from eventlab.testing.contract import append, chunk, draft


def acknowledged(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def chunk_rows(source: str, number: int, rows: int) -> list[Draft]:
    """The rows of a chunk, the same every time."""
    return [
        draft(
            f"{'order' if i % 3 else 'item'}-{i % 7}", i,
            event_id=hashlib.blake2b(f"{source}/{number}/{i}".encode(), digest_size=16).digest(), occurred_at=i,
        )
        for i in range(rows)
    ]  # fmt: skip


def append_one(store: DiskStore, name: str, i: int) -> None:
    mine = (draft(f"order-{name}", i), draft("order-shared", i), draft(f"item-{name}", i))
    done = append(store, *mine)
    acknowledged(positions=done.positions, ids=[d.event_id.hex() for d in mine])


def count_one(store: DiskStore, name: str, i: int) -> None:
    while True:
        version = store.version("a", "counter-1")
        try:
            done = append(store, draft("counter-1", version), expected={"counter-1": version})
        except Conflict:
            continue
        return acknowledged(positions=done.positions, versions=done.versions)


def ingest_one(store: DiskStore, name: str, i: int, rows: int) -> None:
    if i not in store.chunks("a", name):
        mine = chunk_rows(name, i, rows)
        state = store.ingest(chunk(mine, name, i), tenant="a")
        acknowledged(positions=list(range(state.first, state.last + 1)), ids=[d.event_id.hex() for d in mine], chunk=i)


def everything(store: DiskStore, name: str, i: int) -> None:
    append_one(store, name, i)
    if i % 3 == 2:
        ingest_one(store, name, len(store.chunks("a", name)), 40)
    if i % 5 == 4:
        store.seal()


def main(mode: str, path: str, name: str, count: int, rows: int) -> int:
    store = open_store(Path(path), now=lambda: time.time_ns() // 1000)
    try:
        for i in range(count) if count else itertools.count():
            if mode == "append":
                append_one(store, name, i)
            elif mode == "count":
                count_one(store, name, i)
            elif mode == "ingest":
                ingest_one(store, name, i, rows)
            elif mode == "seal":
                store.seal()
            else:
                everything(store, name, i)
    except KeyboardInterrupt:
        return 130
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]) if len(sys.argv) > 5 else 0))
