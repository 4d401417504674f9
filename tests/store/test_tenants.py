"""What is done to one tenant, and all that keeps the store of both, leaves the other as it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlab.errors import Conflict
from eventlab.model.filters import Clause, Filter
from eventlab.store.backup import backup, restore
from eventlab.store.base import Condition, Snapshot
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.verify import verify
from eventlab.testing.contract import append, chunk, draft, rows, stream_rows

STREAMS = ("order-1", "order-2", "item-1")
#: Both tenants ingest the same source and append events of the same ids, so that nothing but the tenant keeps them apart.
IDS = [bytes([n]) * 16 for n in range(4)]


def now() -> int:
    return time.time_ns() // 1000


def fingerprint(store: DiskStore, tenant: str) -> dict[str, Any]:
    """Everything that a tenant's users can see of a store."""
    cut = store.cut()
    return {
        "events": rows(cut, tenant=tenant),
        "tagged": rows(cut, Filter((Clause(tags=frozenset({"t:1"})),)), tenant=tenant),
        "streams": {name: (store.version(tenant, name), stream_rows(cut, name, tenant=tenant)) for name in STREAMS},
        "ingested": store.chunks(tenant, "files"),
        "snapshots": {name: store.snapshot(tenant, name, "Model") for name in STREAMS},
        "read models": [(b.name, b.fingerprint, b.position, b.table().to_pylist()) for b in store.read_models.of(tenant)],
    }


def wrote(store: DiskStore, tenant: str, n: int) -> None:
    append(store, draft(STREAMS[n % 3], n, tags=[f"t:{n % 2}"]), draft("order-1", n), tenant=tenant)


def tried_an_old_version(store: DiskStore, tenant: str, n: int) -> None:
    with pytest.raises(Conflict):
        append(store, draft("order-1", n), tenant=tenant, expected={"order-1": 10_000})


def repeated(store: DiskStore, tenant: str, n: int) -> None:
    append(store, draft("order-2", n % 4, event_id=IDS[n % 4]), tenant=tenant, repeats=True)


def ingested(store: DiskStore, tenant: str, n: int) -> None:
    done = store.chunks(tenant, "files")
    store.ingest(chunk([draft(STREAMS[i % 3], n) for i in range(n)], number=len(done)), tenant=tenant)


def kept_a_snapshot(store: DiskStore, tenant: str, n: int) -> None:
    store.save_snapshot(tenant, STREAMS[n % 3], "Model", Snapshot(f"code {n}", n, n, (n,)))


def kept_a_read_model(store: DiskStore, tenant: str, n: int) -> None:
    store.read_models.save("model", tenant, f"code {n}", n, pa.table({"n": [n]}))


DONE: dict[str, Callable[[DiskStore, str, int], Any]] = {
    "append": wrote,
    "conflict": tried_an_old_version,
    "repeat": repeated,
    "ingest": ingested,
    "snapshot": kept_a_snapshot,
    "read model": kept_a_read_model,
    "seal": lambda store, tenant, n: store.seal(),
    "compact": lambda store, tenant, n: store.compact(all=bool(n % 2), positions=10),
    "collect": lambda store, tenant, n: store.collect(grace=0),
}

steps = st.lists(st.tuples(st.sampled_from(list(DONE)), st.integers(1, 9)), max_size=12)


@settings(max_examples=15)
@given(before=steps, after=steps)
def test_no_step_for_one_tenant_changes_what_another_sees(
    tmp_path_factory: pytest.TempPathFactory, before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("tenants")
    store = open_store(folder / "log", now=now)
    try:
        for name, n in before:
            for tenant in ("a", "b"):
                DONE[name](store, tenant, n)
        head = store.cut().head
        of_b = fingerprint(store, "b")
        for name, n in after:
            DONE[name](store, "a", n)
            assert fingerprint(store, "b") == of_b, f"after {name}"
        assert verify(store, full=True).ok
        # What A did since is nothing that a decision of B's could conflict with.
        condition = Condition(Filter((Clause(),)), head)
        append(store, draft("order-1", 1), tenant="b", condition=condition)
        of_b = fingerprint(store, "b")
        backup(store, folder / "copy", now=now)
    finally:
        store.close()
    restore(folder / "copy", folder / "again", now=now)
    for place, parts in (("log", [*of_b]), ("again", ["events", "tagged", "streams", "ingested"])):
        store = open_store(folder / place, now=now)
        found = fingerprint(store, "b")
        # Snapshots and read models can be made again, so a backup has none.
        assert {part: found[part] for part in parts} == {part: of_b[part] for part in parts}, place
        store.close()
