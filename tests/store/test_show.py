"""Show finds everything in a store and says what it is, also where something is damaged: then it says what cannot be read."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from store.damage import catalog_of

from eventlab.errors import EventlabError, Refused, UnknownStream
from eventlab.model.schema import Schema
from eventlab.store import show
from eventlab.store.base import ALL, Snapshot
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.show import show_catalog, show_event, show_segment, show_stream, show_table
from eventlab.store.shown import RIGHT, WRONG, ShownEvent
from eventlab.store.words import aligned, plain, some
from eventlab.testing.contract import append, chunk, draft

BILLED = Schema(
    "Billed", 2, ("total:d18_2", "at:ts", "to.city:s", "lines:l_i64", "notes:m_s", "raw:bin", "rate:f64", "paid:b", "any:json")
)


def now() -> int:
    return time.time_ns() // 1000


def billed(stream: str, i: int) -> Any:
    city = "Graz" if i % 2 else None
    payload = (100 * i, i * 10**9, city, [i, i + 1], {"k": "v"}, b"\x00", float("nan"), i % 3 == 0, '{"a":1}')
    return draft(stream, *payload, schema=BILLED, tags=("vip",), actor="ann", correlation_id=bytes(16))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tenants: two eras, sealed runs, an ingest behind a hole of hot events, and a hot tail; retired files too."""
    path = tmp_path_factory.mktemp("show") / "log"
    store = open_store(path, now=now)
    for i in range(20):
        append(store, draft(f"order-{i % 3}", i), billed("bill-1", i))
        append(store, draft("order-1", i), tenant="b")
    store.seal()
    store.compact(all=True, positions=30)
    append(store, *(draft("order-1", i) for i in range(7)))
    store.seal()
    append(store, *(billed("bill-1", i) for i in range(3)))
    store.ingest(chunk([draft(f"order-{i % 4}", i) for i in range(10)]), tenant="a")
    append(store, draft("order-2", 5), billed("bill-2", 9))
    store.save_snapshot("a", "order-1", "order", Snapshot("f" * 32, 9, 61, (1, "x")))
    store.close()
    return path


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Iterator[DiskStore]:
    shutil.copytree(original, tmp_path / "log")
    store = open_store(tmp_path / "log", now=now)
    yield store
    store.close()


def edited(store: DiskStore, *statements: str) -> DiskStore:
    """The store, opened again after its catalog was changed behind its back."""
    path = store.root
    store.close()
    with catalog_of(path) as catalog:
        for statement in statements:
            assert catalog.execute(statement).rowcount > 0, statement
    return open_store(path, now=now)


def first_hot(store: DiskStore) -> int:
    return min(part.first for part in store.cut().layout.hot)


# -- events ----------------------------------------------------------------------------------------------------------------


def read(store: DiskStore) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every event as reading gives it: its row in stored form, and its payload in plain values."""
    for batch in store.cut().batches(tenant=ALL):
        yield from zip(batch.rows(), batch.events(lambda name: None), strict=True)


def test_every_event_is_shown_as_it_is_read_wherever_it_lies(store: DiskStore) -> None:
    places = set()
    for row, data in read(store):
        shown = show_event(store, row.position)
        said = shown.envelope
        assert shown.problems == ()
        assert shown.digest == RIGHT
        assert (said["stream"], said["version"], said["tenant"]) == (row.stream, row.version, row.tenant)
        assert (said["type"], said["schema_version"], said["actor"]) == (row.type, row.schema_version, row.actor)
        assert (said["event_id"].bytes, tuple(said["tags"]), said["commit"]) == (row.event_id, row.tags, row.commit)
        assert said["recorded_at"].timestamp() * 1e6 == pytest.approx(row.recorded_at, abs=1)
        flat = {**data, **{f"to.{name}": of for name, of in data.pop("to", {}).items()}}
        flat.pop("to", None)
        assert repr({field.name: field.value for field in shown.payload}) == repr({f.name: flat[f.name] for f in shown.payload})
        assert len(shown.payload) == len(flat)
        places.add(shown.where.partition("(")[2].partition(",")[0] or shown.where)
        if shown.file is not None:
            group = pq.ParquetFile(store.root / shown.file).read_row_group(shown.row_group)
            assert group.column("position")[shown.row].as_py() == row.position
    assert places == {"level 1", "level 0", "hot: a row of catalog.sqlite"}


def test_an_event_reads_as_text(store: DiskStore) -> None:
    position = next(row.position for row, _ in read(store) if row.stream == "bill-2")
    text = str(show_event(store, position))
    assert text.startswith(f"event {position}: Billed, version 1 of bill-2\n")
    for line in (
        "where           hot: a row of catalog.sqlite",
        "digest          as it was written",
        "schema version  2",
        "correlation id  00000000-0000-0000-0000-000000000000",
        "tags            vip",
        "total    Decimal(18, 2)  Decimal('9.00')",
        "at       datetime        1970-01-01T02:30:00Z",
        "to.city  str             'Graz'",
        "lines    list[int]       [9, 10]",
        "notes    dict[str, str]  {'k': 'v'}",
        "raw      bytes           b'\\x00'",
        "any      JSON            {'a': 1}",
    ):
        assert line in text
    assert text == str(show_event(store, position))


@pytest.mark.parametrize("position", [-3, 0, 1_000])
def test_a_position_that_the_log_does_not_have_is_refused(store: DiskStore, position: int) -> None:
    with pytest.raises(Refused, match=f"no position {position:,}: the log ends at {store.cut().head}"):
        show_event(store, position)


def test_an_empty_log_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path / "log", now=now)
    with pytest.raises(Refused, match="the log is empty"):
        show_event(store, 1)
    assert show_catalog(store).segments == ()
    store.close()


# -- streams ---------------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_stream_are_its_versions_once_each(store: DiskStore) -> None:
    rows = [row for row, _ in read(store)]
    for stream in {row.stream for row in rows}:
        answers = show_stream(store, stream)
        assert [shown.tenant for shown in answers] == sorted({row.tenant for row in rows if row.stream == stream})
        for shown in answers:
            mine = [row for row in rows if (row.tenant, row.stream) == (shown.tenant, stream)]
            assert (shown.version, shown.first, shown.last) == (len(mine), mine[0].position, mine[-1].position)
            assert shown.problems == ()
            at = 0
            for part in shown.parts:
                here = [row.position for row in mine if part.versions[0] <= row.version <= part.versions[1]]
                assert part.versions[0] == at + 1
                assert (part.positions, part.events) == ((min(here), max(here)), len(here))
                assert part.digest == RIGHT
                at = part.versions[1]
            assert at == shown.version


def test_a_stream_has_its_snapshots_and_how_far_they_are_behind(store: DiskStore) -> None:
    (shown,) = show_stream(store, "order-1", "a")
    (kept,) = shown.snapshots
    assert (kept.model, kept.version, kept.behind) == ("order", 9, shown.version - 9)
    assert "snapshot of" in str(shown)
    assert show_stream(store, "order-1", "b")[0].snapshots == ()


def test_a_stream_that_is_not_there_is_answered_with_some_that_are(store: DiskStore) -> None:
    with pytest.raises(UnknownStream, match="order-10") as caught:
        show_stream(store, "order-10")
    assert caught.value.hint == "there is order-2, order-3, order-0"
    with pytest.raises(UnknownStream, match="of tenant 'c'"):
        show_stream(store, "order-1", "c")
    with pytest.raises(UnknownStream) as caught:
        show_stream(store, "nothing-1")
    assert "show --catalog" in caught.value.hint


# -- segments --------------------------------------------------------------------------------------------------------------


def test_a_segment_is_shown_by_its_number_its_file_and_a_part_of_its_name(store: DiskStore) -> None:
    for segment in store.segments():
        shown = show_segment(store, str(segment.id))
        assert show_segment(store, segment.path.name) == shown
        assert show_segment(store, str(segment.path)) == shown
        assert show_segment(store, segment.path.stem[-8:]) == shown
        assert (shown.first, shown.last, shown.rows, shown.bytes) == (segment.first, segment.last, segment.rows, segment.bytes)
        assert (shown.tenant, shown.category, shown.level) == (segment.tenant, segment.category, segment.level)
        assert (shown.digest, shown.problems) == (RIGHT, ())


def test_digits_are_a_part_of_a_segments_name_where_no_segment_has_that_number(store: DiskStore) -> None:
    ends = Counter(segment.last for segment in store.segments() if segment.level == 0)
    alone = [segment for segment in store.segments() if segment.level == 0 and ends[segment.last] == 1]
    assert alone
    for segment in alone:
        assert show_segment(store, f"{segment.last:019d}") == show_segment(store, str(segment.id))


def test_the_columns_of_a_segment_are_those_of_its_table(store: DiskStore) -> None:
    for segment in store.segments():
        shown = show_segment(store, str(segment.id))
        table = pq.read_table(segment.path)
        assert sum(column.bytes for column in shown.columns) == sum(group.bytes for group in shown.groups) < segment.bytes
        assert sum(group.rows for group in shown.groups) == len(table)
        for column in shown.columns:
            if column.name in ("position", "version", "stream", "n:i64", "total:d18_2"):
                values = [value for value in table.column(column.name).to_pylist() if value is not None]
                assert (column.low, column.high) == (min(values), max(values))
                assert column.nulls == len(table) - len(values)
        text = str(shown)
        assert f"segment {segment.id}\n" in text
        assert "DELTA_BINARY_PACKED" in text


def test_a_part_of_a_name_that_is_not_enough_is_refused(store: DiskStore) -> None:
    with pytest.raises(Refused, match="segments have 'parquet' in their names"):
        show_segment(store, "parquet")
    for nothing in ("999", "nothing.parquet", ""):
        with pytest.raises(Refused, match="there is no segment"):
            show_segment(store, nothing)


def test_the_states_of_segments_are_said_in_words(store: DiskStore) -> None:
    live, *_ = store.segments()
    (retired,) = [line for line in show_catalog(store).segments if line.state == "retired" and line.tenant == "b"][:1]
    assert "replaced by compaction" in retired.about
    assert "replaced by compaction" in show_segment(store, str(retired.number)).state
    store = edited(store, f"UPDATE segment SET state = 'pending', lease = 1 WHERE id = {retired.number}")
    assert "left over from a writer that died" in show_segment(store, str(retired.number)).state
    store = edited(store, f"UPDATE segment SET lease = 99999999999 WHERE id = {retired.number}")
    pending = show_segment(store, str(retired.number))
    assert "being written" in pending.state
    assert pending.problems == ()
    assert show_segment(store, str(live.id)).state == "live: a part of the log"
    store.close()


# -- the catalog -----------------------------------------------------------------------------------------------------------


def test_the_catalog_counts_every_table_and_names_what_numbers_stand_for(store: DiskStore) -> None:
    held = store.cut().hold()
    shown = show_catalog(store)
    with store.inspect() as catalog:
        names = [name for (name,) in catalog.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = {name: catalog.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    assert {table.name: table.rows for table in shown.tables} == counts
    assert sorted(shown.tenants.values()) == ["a", "b"]
    assert sorted(shown.categories.values()) == ["bill", "order"]
    assert shown.log["head"] == store.cut().head
    assert len([line for line in shown.segments if line.state == "live"]) == len(store.segments())
    assert shown.problems == ()
    assert f"reader {held.token} keeps the files of layout" in str(shown)
    held.release()


def test_a_row_of_the_catalog_is_shown_with_names_moments_and_decoded_blobs(store: DiskStore) -> None:
    position = max(row.position for row, _ in read(store) if row.type == "Counted")
    shown = show_table(store, "event", where={"position": str(position)})
    (row,) = shown.rows
    assert (shown.total, row["tenant"], row["payload"]) == (1, "a", (5,))
    assert row["recorded_at"].tzinfo is not None
    (kept,) = show_table(store, "snapshot").rows
    assert (kept["tenant"], kept["state"]) == ("a", [1, "x"])
    assert "stream       order-1\n" in str(show_table(store, "snapshot")).replace("  stream", "stream", 1)
    few = show_table(store, "stream_head", limit=2)
    assert (len(few.rows), few.total) == (2, len(show_table(store, "stream_head").rows))


def test_a_table_or_column_that_the_catalog_does_not_have_is_refused(store: DiskStore) -> None:
    with pytest.raises(Refused, match="no table 'events'"):
        show_table(store, "events")
    with pytest.raises(Refused, match="no column 'id; DROP TABLE event'"):
        show_table(store, "event", where={"id; DROP TABLE event": "1"})


# -- damage ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "emptied"])
def test_a_damaged_segment_is_named_and_all_other_events_are_shown(store: DiskStore, damage: str) -> None:
    chance = random.Random(5)
    head = store.cut().head
    for victim in store.segments():
        whole = victim.path.read_bytes()
        inside = set(pq.read_table(victim.path, columns=["position"]).column(0).to_pylist())
        streams = set(pq.read_table(victim.path, columns=["stream"]).column(0).to_pylist())
        raw = bytearray(whole)
        raw[chance.randrange(len(raw))] ^= 4
        if damage == "missing":
            victim.path.unlink()
        else:
            victim.path.write_bytes({"flipped": bytes(raw), "cut": whole[:-9], "emptied": b""}[damage])
        said = "missing" if damage == "missing" else WRONG
        for position in range(1, head + 1):
            shown = show_event(store, position)
            assert (shown.digest == RIGHT) == (position not in inside)
            if position in inside:
                assert shown.where == f"in a segment that cannot be read: {victim.id}"
                assert any(victim.path.name in problem for problem in shown.problems)
            else:
                assert shown.problems == ()
        for stream in streams:
            (shown_stream,) = show_stream(store, stream, victim.tenant)
            assert any(victim.path.name in problem for problem in shown_stream.problems)
        segment = show_segment(store, str(victim.id))
        assert (segment.digest, segment.columns) == (said, ())
        assert f"it is {said}" in str(segment)
        victim.path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("record = set_in(record, 'actor', 'eve')", "not as it was written"),
        ("record = set_in(record, 'payload', x'9101')", "not as it was written"),
        ("record = set_in(record, 'payload', x'00ff')", "the record cannot be read"),
        ("record = set_in(record, 'payload', x'91')", "the record cannot be read"),
        ("record = x'77'", "the record cannot be read"),
        ("record = set_in(record, 'recorded_at', 9223372036854775807)", "not as it was written"),
        ("event_id = x'00'", "not as it was written"),
        ("tenant = 77", "not as it was written"),
        ("record = set_in(record, 'type', 'Unheard')", "the schema of Unheard version 2 cannot be read"),
    ],
)
def test_a_changed_hot_event_is_shown_as_far_as_it_decodes(store: DiskStore, change: str, said: str) -> None:
    at = first_hot(store)
    store = edited(store, f"UPDATE event SET {change} WHERE position = {at}")
    shown = show_event(store, at)
    assert shown.digest == WRONG
    assert any(said in problem for problem in shown.problems)
    assert f"event {at}: " in str(shown)
    assert shown.envelope["stream"] == "bill-1"
    if "tenant" not in change:
        (stream,) = show_stream(store, "bill-1")
        assert WRONG in [part.digest for part in stream.parts]
        assert f"hot position {at} is not as it was written" in stream.problems
    assert show_table(store, "event", where={"position": str(at)}).total == 1
    store.close()


@pytest.mark.parametrize(
    ("statement", "look", "said"),
    [
        ("DELETE FROM schema WHERE name = 'Billed'", lambda s: show_event(s, 2), "the schema of Billed version 2"),
        ("UPDATE schema SET json = '{' WHERE name = 'Billed'", lambda s: show_event(s, 2), "the schema of Billed version 2"),
        ("DELETE FROM event", lambda s: show_event(s, s.heads()[0]), "no live segment and no hot row holds position"),
        ("DELETE FROM event", lambda s: show_stream(s, "bill-2")[0], "version 0 is the last that was found"),
        ("UPDATE stream_head SET version = 99 WHERE stream = 'bill-2'", lambda s: show_stream(s, "bill-2")[0], "version 99"),
        ("UPDATE event SET version = 7 WHERE stream = 'bill-2'", lambda s: show_stream(s, "bill-2")[0], "versions 1 to 7"),
        ("UPDATE segment SET rows = 5", lambda s: show_segment(s, str(s.segments()[0].id)), "and the catalog 5"),
    ],
)
def test_what_does_not_fit_together_is_said(
    store: DiskStore, statement: str, look: Callable[[DiskStore], Any], said: str
) -> None:
    store = edited(store, statement)
    shown = look(store)
    assert any(said in problem for problem in shown.problems), shown.problems
    assert said in str(shown)
    store.close()


def test_an_event_without_a_schema_is_shown_by_its_columns(store: DiskStore) -> None:
    first = first_hot(store)
    store = edited(store, "DELETE FROM schema WHERE name = 'Billed'")
    sealed: ShownEvent = show_event(store, 2)
    assert {field.name for field in sealed.payload} >= {"total", "at", "lines"}
    hot = show_event(store, first)
    assert [(field.name, field.type) for field in hot.payload][:2] == [("value 1", "not known"), ("value 2", "not known")]
    assert hot.digest == RIGHT
    store.close()


def test_flipped_bytes_anywhere_never_end_in_anything_but_an_answer_or_an_error_with_a_message(
    original: Path, tmp_path: Path
) -> None:
    chance = random.Random(11)
    path = tmp_path / "log"
    noticed = 0
    for round_ in range(60):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(original, path)
        files = sorted(path.rglob("*.parquet")) if round_ % 3 == 0 else [path / "catalog.sqlite"]
        victim = chance.choice(files)
        raw = bytearray(victim.read_bytes())
        for _ in range(chance.choice((1, 30))):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        victim.write_bytes(bytes(raw))
        problems: list[str] = []
        try:
            store = open_store(path, now=now)
        except (EventlabError, sqlite3.Error):
            noticed += 1
            continue
        looks: list[Callable[[], Any]] = [lambda: show_catalog(store)]  # noqa: B023
        looks += [lambda position=position: show_event(store, position) for position in range(1, 80, 6)]  # noqa: B023
        looks += [lambda stream=stream: show_stream(store, stream) for stream in ("order-1", "bill-1")]  # noqa: B023
        looks += [lambda number=number: show_segment(store, str(number)) for number in range(1, 9)]  # noqa: B023
        looks += [lambda table=table: show_table(store, table) for table in ("event", "segment", "snapshot")]  # noqa: B023
        for look in looks:
            try:
                found = look()
                problems += [p for one in (found if isinstance(found, tuple) else (found,)) if str(one) for p in one.problems]
            except EventlabError as why:
                problems += [] if isinstance(why, Refused) else [why.message]
        noticed += bool(problems)
        store.close()
    assert noticed >= 20


@pytest.mark.parametrize("step", ["_row_at", "_part"])
def test_files_that_are_compacted_away_while_one_looks_are_no_problem(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    look = getattr(show, step)
    compacted = []

    def late(*given: Any) -> Any:
        if not compacted:
            store.seal()
            compacted.append(store.compact(all=True))
            assert store.collect(grace=0).files > 0
        return look(*given)

    monkeypatch.setattr(show, step, late)
    shown = show_event(store, 1) if step == "_row_at" else show_stream(store, "order-1")[0]
    assert shown.problems == ()
    assert compacted[0].eras > 0


def test_show_changes_nothing(store: DiskStore) -> None:
    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in store.root.rglob("*") if p.is_file() and not p.name.endswith("-shm")}

    before = contents()
    show_event(store, 3)
    show_stream(store, "order-1")
    show_segment(store, "1")
    show_catalog(store)
    show_table(store, "event")
    assert contents() == before


# -- words -----------------------------------------------------------------------------------------------------------------


def test_long_values_and_long_tables_are_cut_and_say_how_long_they_are() -> None:
    assert plain("x" * 5_000).endswith("… (5,000 characters)")
    assert some([str(i) for i in range(100)])[-1] == "… and 60 more (--json gives all)"
    assert aligned(("a", "b"), [("1", "xx"), ("22", "y")], {0}) == ["", " a  b", " 1  xx", "22  y"]


def test_text_with_control_characters_does_not_reach_the_terminal_as_such() -> None:
    assert plain("a\x1b[31mb") == "'a\\x1b[31mb'"
