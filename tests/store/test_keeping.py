"""Keeping a store for years: maintenance that runs by itself, leases, backup and restore, upgrade."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store.damage import catalog_of

from eventlab.errors import Damaged, NewerFormat, NoStore, OlderFormat
from eventlab.store.backup import backup, restore
from eventlab.store.base import ALL, Appended, checksum, pack, record_digest, rows_of_record, unpack
from eventlab.store.catalog import FORMAT, identity
from eventlab.store.compact import BUCKET_ROWS, BUCKET_STREAMS, FILE_ROWS, buckets_for, due
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.maintain import Maintenance, Policy, alone
from eventlab.store.segment import Segment
from eventlab.store.upgrade import STEPS, upgrade
from eventlab.store.verify import verify
from eventlab.testing.contract import append, chunk, draft, rows, stream_rows

ROOT = Path(__file__).resolve().parents[2]


def now() -> int:
    return time.time_ns() // 1000


@contextlib.contextmanager
def opened(path: Path) -> Iterator[DiskStore]:
    store = open_store(path, now=now)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with opened(tmp_path / "log") as store:
        yield store


def filled(store: DiskStore) -> DiskStore:
    """Two tenants: an era, a sealed run, an ingested one, and hot events."""
    for i in range(30):
        append(store, draft(f"order-{i % 4}", i), draft("item-1", i))
        append(store, draft("order-1", i), tenant="b")
    store.seal()
    store.compact(all=True)
    append(store, *(draft("order-1", i) for i in range(9)))
    store.seal()
    append(store, draft("order-2", 1))
    store.ingest(chunk([draft(f"item-{i % 3}", i) for i in range(20)]), tenant="a")
    append(store, draft("order-2", 2))
    return store


# -- compaction ------------------------------------------------------------------------------------------------------------


def run(first: int, last: int, *, level: int = 0) -> Segment:
    return Segment(first, Path("x"), "a", "order", first, last, last - first + 1, 1, "", (), 0, 0, level)


def spans(live: list[Segment], *, all: bool = False, positions: int = 100) -> list[tuple[int, int, bool]]:
    return [(era.first, era.last, era.by_stream) for era in due(live, all=all, positions=positions)]


def test_an_era_closes_once_the_next_one_is_half_full() -> None:
    runs = [run(i, i + 19) for i in range(1, 141, 20)]
    assert spans(runs) == []
    assert spans([*runs, run(141, 150)]) == [(1, 100, True)]
    assert spans(runs, all=True) == [(1, 100, True), (101, 140, True)]


def test_a_hole_of_hot_events_ends_an_era() -> None:
    assert spans([run(1, 60), run(62, 90)], all=True) == [(1, 60, True), (62, 90, True)]


def test_what_is_sorted_is_not_sorted_again_for_a_few_events_unless_it_is_small() -> None:
    large = 2 * BUCKET_ROWS
    assert spans([run(1, large, level=1), run(large + 1, large + 9)], all=True, positions=10 * large) == []
    grown = [run(1, large, level=1), run(large + 1, 2 * large)]
    assert spans(grown, all=True, positions=10 * large) == [(1, 2 * large, True)]
    assert spans([run(1, 9, level=1), run(10, 12)], all=True) == [(1, 12, True)]
    assert spans([run(1, 50, level=1), run(51, 100, level=1)], all=True) == []


def test_many_short_runs_become_longer_ones() -> None:
    runs = [run(i, i) for i in range(1, 41)]
    assert spans(runs[:31], positions=10_000_000) == []
    assert spans(runs, positions=10_000_000) == [(1, 40, False)]


def test_buckets_are_a_power_of_two_with_streams_and_rows_in_bounds() -> None:
    for rows_, streams in [(0, 0), (10, 10), (10**6, 10), (10**6, 10**6), (10**7, 10**6), (10**7, 1), (10**8, 10**7)]:
        buckets = buckets_for(rows_, streams)
        assert buckets & (buckets - 1) == 0
        assert buckets == 1 or rows_ / buckets >= BUCKET_ROWS
        if rows_ >= 4 * BUCKET_ROWS:
            fits = streams <= buckets * BUCKET_STREAMS and rows_ <= buckets * FILE_ROWS
            assert fits or rows_ < 2 * buckets * BUCKET_ROWS


def test_a_cut_outlives_the_files_it_was_made_of(store: DiskStore) -> None:
    filled(store)
    cut = store.cut()
    before = rows(cut)
    store.seal()
    store.compact(all=True)
    assert store.collect(grace=0).files > 0
    assert rows(cut) == before
    late = store.cut()
    assert rows(late) == before


def test_held_files_stay_until_they_are_released(store: DiskStore) -> None:
    filled(store)
    held = store.cut().hold()
    named = [path for group in store.cut().sources(ALL) for path in group.paths]
    store.seal()
    store.compact(all=True)
    store.collect(grace=0)
    assert all(Path(path).exists() for path in named)
    held.release()
    store.collect(grace=0)
    assert not any(Path(path).exists() for path in named if "/l0/" in path)


def test_retired_files_stay_for_the_grace_time(store: DiskStore) -> None:
    filled(store)
    store.seal()
    store.compact(all=True)
    assert store.collect().files == 0
    assert store.collect(grace=0).files > 0
    assert store.collect(grace=0).files == 0


def test_what_is_done_to_one_tenant_leaves_the_other_as_it_was(store: DiskStore) -> None:
    filled(store)
    before = rows(store.cut(), tenant="b")
    store.ingest(chunk([draft("order-1", i) for i in range(10)], "more"), tenant="a")
    append(store, draft("order-1", 1))
    for step in (store.seal, lambda: store.compact(all=True), lambda: store.collect(grace=0)):
        step()
        assert rows(store.cut(), tenant="b") == before
        assert verify(store, full=True).findings == ()


# -- maintenance -----------------------------------------------------------------------------------------------------------

QUICK = Policy(seal_at=200, era_positions=400, collect_every=0.1, look_every=0.01)


def eventually(test: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if test():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def test_a_store_in_use_is_sealed_compacted_and_swept_by_itself(store: DiskStore) -> None:
    maintenance = Maintenance(store, QUICK)
    for i in range(700):
        append(store, draft(f"order-{i % 5}", i), draft("item-1", i))
        maintenance.written()
    assert eventually(lambda: any(s.by_stream for s in store.segments()))
    assert eventually(lambda: store.heads()[0] - store.heads()[1] < QUICK.seal_at)
    maintenance.stop()
    assert maintenance.error is None
    assert len(rows(store.cut())) == 1_400
    assert verify(store, full=True).findings == ()


def test_whoever_writes_is_told_once_that_a_store_cannot_be_kept_in_shape(store: DiskStore) -> None:
    maintenance = Maintenance(store, QUICK)
    (store.root / "segments").write_text("in the way")
    try:
        append(store, *(draft(f"order-{i}", i) for i in range(QUICK.seal_at)))
        maintenance.written()
        assert eventually(lambda: maintenance.error is not None)
        with pytest.warns(RuntimeWarning, match="not kept in shape.*segments"):
            maintenance.written()
        maintenance.written()
        (store.root / "segments").unlink()
        assert eventually(lambda: not store.heads()[0] - store.heads()[1])
        assert eventually(lambda: maintenance.error is None)
    finally:
        maintenance.stop()
    assert len(rows(store.cut())) == QUICK.seal_at


def test_one_process_at_a_time_maintains_a_store(store: DiskStore) -> None:
    append(store, draft("order-1", 1))
    with alone(store) as first, alone(store) as second:
        assert (first, second) == (True, False)
    with alone(store) as again:
        assert again


def test_maintenance_that_is_stopped_in_the_middle_leaves_nothing_behind(store: DiskStore) -> None:
    append(store, *(draft(f"order-{i}", i) for i in range(5_000)))
    maintenance = Maintenance(store, QUICK)
    started = threading.Event()
    pause = maintenance._pause

    def first_pause() -> None:
        started.set()
        pause()

    maintenance._pause = first_pause  # type: ignore[method-assign]
    maintenance.written()
    assert started.wait(20)
    maintenance.stop()
    assert [f.code for f in verify(store, full=True).findings] == []
    assert len(rows(store.cut())) == 5_000


def test_maintenance_does_not_keep_a_forgotten_store_or_process_alive(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from eventlab.store.disk import open_store
        from eventlab.store.maintain import Maintenance, Policy
        from eventlab.testing.contract import append, draft
        store = open_store(Path(sys.argv[1]), now=lambda: time.time_ns() // 1000)
        maintenance = Maintenance(store, Policy(seal_at=1, look_every=0.001))
        append(store, *(draft(f"order-{i}", i) for i in range(3_000)))
        maintenance.written()
        time.sleep(0.05)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with opened(tmp_path / "log") as store:
        assert len(rows(store.cut())) == 3_000


# -- backup and restore ----------------------------------------------------------------------------------------------------


def test_a_backup_is_a_store_with_the_same_events_and_restore_makes_it_one_again(store: DiskStore, tmp_path: Path) -> None:
    filled(store)
    before = rows(store.cut())
    done = backup(store, tmp_path / "backup", now=now)
    assert done.events == len(before)
    append(store, draft("order-1", 99))
    restored = restore(tmp_path / "backup", tmp_path / "again", now=now)
    assert restored.events == len(before)
    with opened(tmp_path / "again") as again:
        assert rows(again.cut()) == before
        assert again.store_id == store.store_id
        assert append(again, draft("order-1", 7)).positions == (len(before) + 1,)
        assert verify(again, full=True).findings == ()


def test_a_backup_is_whole_though_the_store_is_written_and_compacted_meanwhile(store: DiskStore, tmp_path: Path) -> None:
    filled(store)
    stop = threading.Event()

    def busy() -> None:
        i = 0
        while not stop.is_set():
            append(store, draft("order-1", i), draft("order-2", i))
            if i % 5 == 4:
                store.seal()
                store.compact(all=True)
                store.collect(grace=0)
            i += 1

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for n in range(5):
            done = backup(store, tmp_path / f"backup-{n}", now=now)
            with opened(tmp_path / f"backup-{n}") as copy:
                assert len(rows(copy.cut())) == done.events
                assert verify(copy, full=True).findings == ()
    finally:
        stop.set()
        thread.join()


def test_a_backup_never_writes_over_anything(store: DiskStore, tmp_path: Path) -> None:
    filled(store)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear")
    with pytest.raises(NoStore, match="never writes over"):
        backup(store, tmp_path / "mine", now=now)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "Dear"


def test_a_damaged_segment_is_not_backed_up_as_if_it_were_whole(store: DiskStore, tmp_path: Path) -> None:
    filled(store)
    victim = store.segments()[0].path
    victim.write_bytes(victim.read_bytes()[:-3] + b"???")
    with pytest.raises(Damaged):
        backup(store, tmp_path / "backup", now=now)
    assert not (tmp_path / "backup").exists()
    assert not list(tmp_path.glob(".*partial"))


# -- formats ---------------------------------------------------------------------------------------------------------------


def downgraded(path: Path, to: int = 1) -> None:
    """Take a store back to format 2, whose hot events had their fields in columns, or 1, without eras, leases and snapshots."""
    fields = (
        "position, tenant, stream, version, type, schema_version, event_id, recorded_at, occurred_at, correlation_id, "
        "causation_id, actor, tags, commit_position, payload, digest"
    )
    with catalog_of(path) as catalog:
        catalog.create_function("unpacked", 2, lambda parts, i: unpack(parts)[0][i])
        catalog.create_function("checksum", -1, checksum)
        values = "tenant, name, fingerprint, position, unpacked(parts, 0), rows, unpacked(parts, 3), unpacked(parts, 4)"
        catalog.execute(
            "CREATE TABLE old(tenant, name, fingerprint, position, path, rows, bytes, digest, checksum, "
            "PRIMARY KEY(tenant, name))"
        )
        catalog.execute(f"INSERT INTO old SELECT {values}, checksum({values}) FROM read_model WHERE state = 'accepted'")
        catalog.execute("DROP TABLE read_model")
        catalog.execute("ALTER TABLE old RENAME TO read_model")
        for table in ("lease", "checkpoint", "inline_row", "read_model_query", "handled", "rejection"):
            catalog.execute(f"DROP TABLE {table}")
        hot = catalog.execute("SELECT tenant, record, digest = digest_of(record) FROM event").fetchall()
        known = catalog.execute("SELECT tenant, event_id, position, version, count FROM event_key").fetchall()
        catalog.execute("DROP TABLE event_key")
        catalog.execute(
            "CREATE TABLE event_key(tenant, event_id, position, version, content, PRIMARY KEY(tenant, event_id)) WITHOUT ROWID"
        )
        catalog.execute("CREATE INDEX event_key_position ON event_key(position)")
        for tenant, event_id, position, version, count in known:
            for at in range(count):
                number = (int.from_bytes(event_id, "big") + at).to_bytes(16, "big")
                catalog.execute("INSERT INTO event_key VALUES(?, ?, ?, ?, x'')", (tenant, number, position + at, version + at))
        catalog.execute("DROP TABLE event")
        columns = fields.replace("position", "position INTEGER PRIMARY KEY", 1)
        catalog.execute(f"CREATE TABLE event({columns}, UNIQUE(tenant, stream, version))")
        for tenant, record, right in hot:
            for row in rows_of_record(record):
                tags = json.dumps(row.tags) if row.tags else None
                digest = record_digest(pack(row)) if right else b"damaged"
                values = (row.position, tenant, *row[2:12], tags, row.commit, pack(row.payload), digest)
                catalog.execute(f"INSERT INTO event({fields}) VALUES({', '.join('?' * len(values))})", values)
                key = (tenant, row.event_id, row.position, row.version)
                catalog.execute("INSERT INTO event_key VALUES(?, ?, ?, ?, x'')", key)
        catalog.execute("UPDATE log SET format = ?, checksum = ?", (2, identity(catalog)))
        if to == 2:
            return
        catalog.execute("ALTER TABLE log DROP COLUMN types")
        for table in ("log", "schema", "import_chunk", "read_model"):
            catalog.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        for column in ("bucket", "buckets", "gone"):
            catalog.execute(f"ALTER TABLE segment DROP COLUMN {column}")
        catalog.execute("DROP INDEX event_key_position")
        catalog.execute("DROP TABLE reader")
        catalog.execute("DROP TABLE snapshot")
        catalog.execute("UPDATE log SET format = 1")


@pytest.fixture
def old(tmp_path: Path) -> tuple[Path, list[object]]:
    path = tmp_path / "old"
    with opened(path) as store:
        append(store, draft("order-1", 1), draft("item-1", 2))
        store.seal()
        append(store, draft("order-1", 3), draft("order-2", 4, actor="ann", tags=("vip", "größe:😀")))
        before = rows(store.cut())
    downgraded(path)
    return path, list(before)


def schema_of(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as catalog:
        tables = [name for (name,) in catalog.execute("SELECT name FROM sqlite_master")]
        return {f"{name}.{column[1]}" for name in tables for column in catalog.execute(f"PRAGMA table_info({name})")} | set(
            tables
        )


def test_an_older_store_is_upgraded_when_it_is_asked_for_and_not_before(old: tuple[Path, list[object]], tmp_path: Path) -> None:
    path, before = old
    with pytest.raises(OlderFormat, match="eventlab upgrade"):
        open_store(path, now=now)
    assert (upgrade(path).before, upgrade(path).after) == (1, FORMAT)
    with opened(path) as store:
        assert rows(store.cut()) == before
        append(store, draft("order-1", 4))
        store.seal()
        store.compact(all=True)
        assert verify(store, full=True).findings == ()
    with opened(tmp_path / "new"):
        pass
    assert schema_of(path) == schema_of(tmp_path / "new")


def test_an_upgrade_killed_at_any_statement_leaves_a_store_that_can_be_upgraded(
    old: tuple[Path, list[object]], tmp_path: Path
) -> None:
    path, before = old
    script = """
        import os, sqlite3, sys
        from pathlib import Path
        from eventlab.store import upgrade

        class Dying(sqlite3.Connection):
            left = int(sys.argv[2])
            def execute(self, *given):
                Dying.left -= 1
                if Dying.left < 0:
                    os._exit(9)
                return super().execute(*given)

        connect = sqlite3.connect
        upgrade.sqlite3.connect = lambda *a, **k: connect(*a, **k, factory=Dying)
        upgrade.upgrade(Path(sys.argv[1]))
    """
    for statements in range(200):
        victim = tmp_path / f"victim-{statements}"
        shutil.copytree(path, victim)
        command = [sys.executable, "-c", textwrap.dedent(script), str(victim), str(statements)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert done.returncode in (0, 9), done.stderr
        upgrade(victim)
        with opened(victim) as store:
            assert rows(store.cut()) == before
        if done.returncode == 0:
            break
    assert done.returncode == 0, "the last one was not killed"
    assert statements > len(STEPS[1]), "each statement of the step was the last once"


def test_ids_are_known_after_an_upgrade_hot_or_not(tmp_path: Path) -> None:
    path = tmp_path / "old"
    sealed, hot = draft("order-1", 1), draft("order-1", 2)
    with opened(path) as store:
        places = [append(store, sealed).positions]
        store.seal()
        places.append(append(store, hot).positions)
    downgraded(path, to=2)
    assert (upgrade(path).before, upgrade(path).before) == (2, FORMAT)
    with opened(path) as store:
        for event, place in zip((sealed, hot), places, strict=True):
            assert append(store, event, repeats=True) == Appended(place, place, (event.event_id,), repeated=True)
        assert verify(store, full=True).findings == ()
        store.seal()
        assert verify(store, full=True).findings == ()
        assert append(store, hot, repeats=True).positions == places[1]


@pytest.mark.parametrize(
    "damage", ["payload = x'c1'", "tags = '[\"vip'", "actor = 'eve'", "tenant = 99", "payload = x'91'", "event_id = x'00'"]
)
def test_an_upgrade_keeps_damage_for_what_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "old"
    with opened(path) as store:
        append(store, draft("order-1", 1))
        append(store, draft("order-2", 2))
        before = stream_rows(store.cut(), "order-1")
    downgraded(path, to=2)
    with catalog_of(path) as catalog:
        catalog.execute(f"UPDATE event SET {damage} WHERE position = 2")
    upgrade(path)
    with opened(path) as store:
        found = {finding.code: finding for finding in verify(store).findings}
        assert (found["hot-event-damaged"].count, found["hot-event-damaged"].position) == (1, 2)
        assert stream_rows(store.cut(), "order-1") == before


def test_a_newer_store_is_refused_by_upgrade_too(store: DiskStore) -> None:
    path = store.root
    append(store, draft("order-1", 1))
    store.close()
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite", isolation_level=None)) as catalog:
        catalog.execute("UPDATE log SET format = ?", (FORMAT + 1,))
    with pytest.raises(NewerFormat, match="install a newer eventlab"):
        upgrade(path)
    with pytest.raises(NoStore):
        upgrade(path / "segments")
    store.users = 1
