"""Verify finds every kind of damage that is done to a store, and none where there is none; info tells what is there."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from store.damage import catalog_of

from eventlab.model.schema import Schema
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.info import WIDE_CATEGORY, Info, info
from eventlab.store.segment import bucket_of, write_segment
from eventlab.store.verify import Verified, verify
from eventlab.testing.contract import append, chunk, draft


def now() -> int:
    return time.time_ns() // 1000


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tenants and two categories: a sealed run, an ingested one after a hole, and hot events in both places."""
    path = tmp_path_factory.mktemp("verify") / "log"
    store = open_store(path, now=now)
    for i in range(40):
        append(store, draft(f"order-{i % 3}", i, tags=("vip",)), draft("item-1", i), actor_of(i))
        append(store, draft("order-1", i), tenant="b")
    store.seal()
    append(store, *(draft("order-1", i) for i in range(5)))
    store.ingest(chunk([draft(f"item-{i % 7}", i) for i in range(50)]), tenant="a")
    append(store, *(draft("order-2", i) for i in range(5)), draft("item-2", 9))
    store.close()
    return path


def actor_of(i: int) -> object:
    return draft("order-9", "x" * i, i, schema=Schema("Named", 1, ("name:s", "n:i64")), actor="ann")


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Iterator[DiskStore]:
    shutil.copytree(original, tmp_path / "log")
    store = open_store(tmp_path / "log", now=now)
    yield store
    store.close()


def codes(report: Verified) -> set[str]:
    return {finding.code for finding in report.findings}


def edited(store: DiskStore, *statements: str) -> None:
    """Change the catalog behind the store's back."""
    with catalog_of(store.root) as catalog:
        for statement in statements:
            assert catalog.execute(statement).rowcount > 0, statement


def written(store: DiskStore, statement: str) -> None:
    """Change hot events behind the store's back, as a program would that knows their digests."""
    edited(store, statement, "UPDATE event SET digest = digest_of(record)")


def reopened(store: DiskStore) -> DiskStore:
    """The same store without what this process remembers of it."""
    path = store.root
    store.close()
    return open_store(path, now=now)


@pytest.mark.parametrize("full", [False, True], ids=["quick", "full"])
def test_a_sound_store_has_no_findings(store: DiskStore, full: bool) -> None:
    report = verify(store, full=full)
    assert report.findings == ()
    assert (report.ok, report.events, report.left_out) == (True, store.cut().head, ())
    store.seal()
    assert verify(store, full=full).findings == ()
    store.compact(all=True)
    append(store, draft("order-1", 1))
    assert verify(store, full=full).findings == ()
    assert store.collect(grace=0).files > 0
    assert verify(store, full=full).findings == ()


def test_an_empty_store_has_no_findings(tmp_path: Path) -> None:
    store = open_store(tmp_path / "log", now=now)
    assert verify(store, full=True).findings == ()
    store.close()


def test_every_flipped_byte_of_a_segment_is_noticed(store: DiskStore) -> None:
    chance = random.Random(7)
    for segment in store.segments():
        whole = segment.path.read_bytes()
        for _ in range(20):
            raw = bytearray(whole)
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
            segment.path.write_bytes(bytes(raw))
            report = verify(store)
            assert codes(report) == {"segment-changed"}
            assert segment.path.name in str(report)
            assert not report.ok
        segment.path.write_bytes(whole)
    assert verify(store).ok


def test_a_bucket_file_in_another_order_is_noticed(store: DiskStore) -> None:
    store.seal()
    store.compact(all=True)
    segment = max(store.segments(), key=lambda s: s.rows)
    table = pq.read_table(segment.path)
    written = write_segment(segment.path, table.take(list(range(len(table)))[::-1]), by_stream=True)
    edited(store, f"UPDATE segment SET digest = '{written.digest}', bytes = {written.bytes} WHERE id = {segment.id}")
    store = reopened(store)
    assert codes(verify(store)) == {"segment-disagrees"}
    store.close()


def test_the_full_look_goes_on_around_damaged_segments(store: DiskStore) -> None:
    first, *_, last = store.segments()
    first.path.write_bytes(first.path.read_bytes()[:-1])
    last.path.unlink()
    store = reopened(store)
    report = verify(store, full=True)
    assert codes(report) == {"segment-changed", "segment-missing"}
    assert len(report.left_out) == 1
    store.close()


HOT = "position = (SELECT max(position) FROM event)"
SEALED_ID = "(SELECT event_id FROM event_key WHERE tenant = event.tenant LIMIT 1)"


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (f"UPDATE event SET record = set_in(record, 'payload', x'9101') WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET record = set_in(record, 'payload', x'00ff') WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET record = set_in(record, 'actor', 'eve') WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET record = set_in(record, 'recorded_at', 77) WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET record = x'' WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET digest = x'00' WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET event_id = zeroblob(16) WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET stream = 'order-9' WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET version = 900 WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET tenant = 3 - tenant WHERE {HOT}", "hot-event-damaged"),
        (f"UPDATE event SET count = count + 1 WHERE {HOT}", "hot-event-damaged"),
        (f"DELETE FROM event WHERE {HOT}", "positions-missing"),
        ("UPDATE log SET head = head + 1", "positions-missing"),
        ("DELETE FROM event_key WHERE position = (SELECT max(position) FROM event_key)", "id-forgotten"),
        ("UPDATE schema SET json = replace(json, 'n:i64', 'n:s') WHERE name = 'Counted'", "schema-changed"),
        ("UPDATE segment SET rows = rows - 1 WHERE id = 1", "segment-disagrees"),
        ("UPDATE segment SET max_recorded = max_recorded + 1 WHERE id = 1", "segment-disagrees"),
        ("DELETE FROM segment WHERE id = (SELECT max(id) FROM segment WHERE state = 'live')", "positions-missing"),
        ("UPDATE segment SET state = 'pending', lease = 1 WHERE id = 1", "pending-dead"),
    ],
)
def test_a_changed_catalog_is_noticed_by_the_quick_look(store: DiskStore, statement: str, code: str) -> None:
    edited(store, statement)
    store = reopened(store)
    report = verify(store)
    assert code in codes(report)
    assert not report.ok
    store.close()


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE stream_head SET version = version + 1 WHERE stream = 'order-1'", "stream-head-wrong"),
        ("DELETE FROM stream_head WHERE stream = 'order-1' AND tenant = 2", "stream-head-wrong"),
        ("UPDATE stream_head SET stream = 'order-77' WHERE stream = 'order-1' AND tenant = 2", "stream-head-wrong"),
        (f"UPDATE event SET record = set_in(record, 'payload', x'9101') WHERE {HOT}", "hot-event-damaged"),
    ],
)
def test_a_changed_catalog_is_noticed_by_the_full_look(store: DiskStore, statement: str, code: str) -> None:
    edited(store, statement)
    store = reopened(store)
    report = verify(store, full=True)
    assert code in codes(report)
    assert not report.ok
    store.close()


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (f"UPDATE event SET version = 900, record = set_in(record, 'version', 900) WHERE {HOT}", "versions-broken"),
        (f"UPDATE event SET record = set_in(record, 'recorded_at', 5) WHERE {HOT}", "clock-back"),
        (
            f"UPDATE event SET event_id = {SEALED_ID}, record = set_in(record, 'event_id', {SEALED_ID}) WHERE {HOT}",
            "id-twice",
        ),
    ],
)
def test_what_another_program_wrote_into_the_catalog_is_noticed(store: DiskStore, statement: str, code: str) -> None:
    written(store, statement)
    store = reopened(store)
    report = verify(store, full=True)
    assert code in codes(report)
    assert "hot-event-damaged" not in codes(report)
    assert not report.ok
    store.close()


def test_a_cause_that_comes_later_is_a_warning(store: DiskStore) -> None:
    mine, theirs = draft("order-5", 1), draft("order-6", 2)
    append(store, draft("order-5", 1, event_id=mine.event_id, causation_id=theirs.event_id))
    append(store, theirs)
    report = verify(store, full=True)
    assert codes(report) == {"cause-later"}
    assert report.findings[0].position == store.cut().head - 1
    assert report.ok


def test_a_file_that_nobody_named_is_noted_and_left_alone(store: DiskStore) -> None:
    stranger = store.root / "segments" / "1" / "1" / "l0" / "stranger.parquet"
    stranger.write_bytes(b"PAR1")
    report = verify(store)
    assert codes(report) == {"file-unknown"}
    assert report.ok
    assert stranger.read_bytes() == b"PAR1"


def test_a_changed_read_model_is_a_warning_for_it_can_be_made_again(tmp_path: Path) -> None:
    import pyarrow as pa

    store = open_store(tmp_path / "log", now=now)
    append(store, draft("order-1", 1))
    store.read_models.save("order", "a", "f", 1, pa.table({"_id": ["1"]}))
    assert verify(store).findings == ()
    (base,) = (store.root / "read_models").iterdir()
    base.write_bytes(base.read_bytes()[:-1] + b"!")
    report = verify(store)
    assert codes(report) == {"read-model-changed"}
    assert report.ok
    store.close()


def test_verify_changes_nothing(store: DiskStore) -> None:
    def contents() -> dict[str, bytes]:
        files = (p for p in store.root.rglob("*") if p.is_file() and p.suffix != ".sqlite-shm")
        return {str(p): p.read_bytes() for p in files if not p.name.endswith("-shm")}

    before = contents()
    verify(store, full=True)
    assert contents() == before


def test_a_store_in_use_is_verified_as_of_the_start(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: Callable[[], object] = store.cut

    def busy() -> object:
        append(store, draft("order-1", 1), draft("order-new", 1))
        store.seal()
        return cut()

    monkeypatch.setattr(store, "cut", busy)
    assert verify(store, full=True).findings == ()


def test_info_counts_what_is_there(store: DiskStore) -> None:
    found = info(store)
    head = store.cut().head
    assert found.events == head == found.sealed + found.hot == sum(t.events for t in found.types)
    assert {(t.name, t.version, t.fields) for t in found.types} == {("Counted", 1, ("n",)), ("Named", 1, ("name", "n"))}
    streams = {(c.tenant, c.category): c.streams for c in found.categories}
    assert streams == {("a", "item"): 7, ("a", "order"): 4, ("b", "order"): 1}
    assert sum(c.sealed for c in found.categories) == found.sealed
    assert found.segment_bytes == sum(p.stat().st_size for p in (store.root / "segments").rglob("*.parquet"))
    assert found.sources == {"files": 50}
    assert found.advice == ()
    text = str(found)
    assert f"{head:,} events" in text
    assert "Counted" in text


def test_info_says_when_a_category_is_too_wide(tmp_path: Path) -> None:
    store = open_store(tmp_path / "log", now=now)
    wide = Schema("Wide", 1, tuple(f"f{i}:i64" for i in range(WIDE_CATEGORY + 1)))
    append(store, draft("order-1", *range(WIDE_CATEGORY + 1), schema=wide))
    (said,) = info(store).advice
    assert f"{WIDE_CATEGORY + 1} payload columns" in said
    store.close()


def test_info_of_an_empty_store(tmp_path: Path) -> None:
    store = open_store(tmp_path / "log", now=now)
    found = info(store)
    assert (found.events, found.types, found.recorded_from) == (0, (), None)
    assert "0 events" in str(found)
    store.close()


def files_met(store: DiskStore, tenant: str, category: str) -> float:
    """The mean number of files whose positions a stream's span meets: of a sorted run only its own bucket."""
    with store.inspect() as catalog:
        spans = catalog.execute(
            "SELECT stream, first_position, last_position FROM stream_head JOIN tenant ON tenant.id = tenant "
            "WHERE name = ? AND stream LIKE ?",
            (tenant, f"{category}-%"),
        ).fetchall()
    met = [
        sum(
            (s.tenant, s.category) == (tenant, category)
            and s.first <= last
            and s.last >= first
            and (not s.by_stream or s.bucket == bucket_of(stream, s.buckets))
            for s in store.segments()
        )
        for stream, first, last in spans
    ]
    return sum(met) / len(met)


def checked_levels(store: DiskStore) -> Info:
    """The info of a store, whose levels and categories are what its segments say."""
    found, segments = info(store), store.segments()
    hot, level_0, eras = found.levels
    assert hot.events == found.hot == sum(c.hot for c in found.categories)
    assert level_0.events == sum(s.rows for s in segments if not s.by_stream) == sum(c.level_0 for c in found.categories)
    assert eras.events == sum(s.rows for s in segments if s.by_stream) == sum(c.eras for c in found.categories)
    assert level_0.bytes + eras.bytes == found.segment_bytes
    assert level_0.segments + eras.segments == len(segments)
    assert found.unsorted_share == pytest.approx((hot.events + level_0.events) / found.events)
    for of in found.categories:
        assert of.level_0 + of.eras == of.sealed
        assert of.files_per_stream == pytest.approx(files_met(store, of.tenant, of.category))
    return found


def test_info_tells_the_levels_and_what_a_compaction_would_gain(store: DiskStore) -> None:
    checked_levels(store)
    store.seal()
    before = checked_levels(store)
    assert before.unsorted_share == 1
    store.compact(all=True)
    after = checked_levels(store)
    assert after.unsorted_share == 0
    assert [c.files_per_stream for c in after.categories] == [c.files_if_compacted for c in before.categories]
    assert before.categories[0].files_per_stream > after.categories[0].files_per_stream
    append(store, draft("order-1", 3))
    assert "sorted by stream, in buckets: one era" in str(checked_levels(store))


def test_info_advises_a_compaction_where_streams_lie_in_many_files(tmp_path: Path) -> None:
    store = open_store(tmp_path / "log", now=now)
    for i in range(6):
        append(store, draft("order-1", i), draft("order-2", i))
        store.seal()
    (said,) = info(store).advice
    assert "100% of its sealed events are not sorted by stream" in said
    assert "opens 6.0 files; after eventlab compact --all it opens 1.0" in said
    store.compact(all=True)
    assert info(store).advice == ()
    store.close()


def test_info_says_what_went_wrong_in_maintenance(store: DiskStore) -> None:
    found = info(store, maintenance_error=OSError(28, "No space left on device"))
    assert "maintenance failed last time, and is tried again: [Errno 28] No space left on device" in str(found)
    assert info(store).maintenance_error == ""
