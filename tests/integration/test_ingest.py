"""Ingest: what people already have becomes events, all of it, once, in the order in which it happened."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integration.ingester import readings
from integration.parcels import ParcelDescribed, frame_of, parcels, told

import eventlab as el
import eventlab.integration.ingest as ingesting
from eventlab.errors import DuplicateEvent, IngestRefused, InvalidName, InvalidValue, ReadOnly, SchemaConflict, Unsupported
from eventlab.model.ids import derived
from eventlab.model.meta import Context
from eventlab.temporal.reader import Bar

ROOT = Path(__file__).resolve().parents[2]
INGESTER = Path(__file__).with_name("ingester.py")
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@el.event
class CrateOpened:
    """Somebody looked into a crate."""

    n: int


@el.event
class CrateClosed:
    """A crate was closed again."""

    n: int


def hours(*after_noon: float) -> list[dt.datetime]:
    return [NOON + dt.timedelta(hours=hour) for hour in after_noon]


def crates(*numbers: int, at: list[dt.datetime] | None = None, **columns: Any) -> pl.DataFrame:
    frame = pl.DataFrame({"n": list(numbers), **columns}, schema_overrides={"n": pl.Int64})
    return frame.with_columns(pl.Series("at", at, dtype=pl.Datetime("us", "UTC"))) if at is not None else frame


def opened(frame: pl.DataFrame, **given: Any) -> el.Rows:
    return el.rows(CrateOpened, frame, **{"stream": "crate-{n}", "occurred_at": "at" if "at" in frame.columns else None} | given)


def closed(frame: pl.DataFrame, **given: Any) -> el.Rows:
    return el.rows(CrateClosed, frame, **{"stream": "crate-{n}", "occurred_at": "at" if "at" in frame.columns else None} | given)


def numbers(lab: el.Lab) -> list[int]:
    return [event.data.n for event in lab.read()]


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch() if request.param == "memory" else el.open(tmp_path / "log") as lab:
        yield lab


@pytest.fixture
def chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingesting, "CHUNK_ROWS", 3)


# -- the same events -------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "é-1"]), parcels()), min_size=1, max_size=6))
def test_ingested_rows_are_the_events_that_would_have_been_appended(found: list[tuple[str, ParcelDescribed]]) -> None:
    with el.scratch() as appended, el.scratch() as ingested:
        for id_, parcel in found:
            appended.append(f"parcel-{id_}", [parcel])
        frame = frame_of([parcel for _, parcel in found], id=[id_ for id_, _ in found])
        ingested.ingest(el.rows(ParcelDescribed, frame, stream="parcel-{id}"), source="frame")
        assert told(ingested.read()) == told(appended.read())


@settings(max_examples=4)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), parcels()), min_size=3, max_size=6))
def test_on_disk_they_are_the_same_hot_sealed_and_ingested(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, ParcelDescribed]]
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    with el.open(folder / "appended") as appended, el.open(folder / "ingested") as ingested:
        for id_, parcel in found:
            appended.append(f"parcel-{id_}", [parcel])
        hot = told(appended.read())
        frame = frame_of([parcel for _, parcel in found], id=[id_ for id_, _ in found])
        ingested.ingest(el.rows(ParcelDescribed, frame, stream="parcel-{id}"), source="frame")
        assert told(ingested.read()) == hot
        assert appended.seal() == len(found)
        assert told(appended.read()) == hot


def test_the_envelope_is_filled_in_as_by_an_append(lab: el.Lab) -> None:
    with lab.context(actor="ann", correlation_id=uuid.UUID(int=3), causation_id=uuid.UUID(int=4)):
        lab.ingest(opened(crates(1, 2, at=hours(0, 1)), tags=["found", "old", "found"]), source="crates")
    for event in lab.read():
        assert (event.actor, event.correlation_id, event.causation_id) == ("ann", uuid.UUID(int=3), uuid.UUID(int=4))
        assert (event.tenant, event.tags, event.schema_version) == ("default", ("found", "old"), 1)
        assert (event.event_id.version, event.event_id.variant) == (8, uuid.RFC_4122)
    assert [e.occurred_at for e in lab.read()] == hours(0, 1)
    assert len({e.event_id for e in lab.read()}) == 2


@given(numbers=st.lists(st.integers(0, 2**40), min_size=1, max_size=5), source=st.text(max_size=5), tenant=st.text(max_size=5))
def test_ids_of_rows_are_those_that_are_derived_from_the_source(numbers: list[int], source: str, tenant: str) -> None:
    shared = ingesting._Shared(source, tenant, len(numbers), imported=False, context=Context())
    first = uuid.UUID(bytes=derived(source, 1, tenant, of=b"eventlab ingest")[0]).int
    ids = [uuid.UUID(bytes=one).int for one in ingesting._row_ids(shared, np.array(numbers)).to_pylist()]
    assert ids == [first - first % 2**62 + (first + number) % 2**62 for number in numbers]
    assert derived(source, 1, tenant) != derived(source, 1, tenant, of=b"eventlab ingest")


def test_without_a_column_of_time_rows_occur_when_they_are_recorded(lab: el.Lab) -> None:
    before = dt.datetime.now(dt.UTC)
    lab.ingest(opened(crates(1, 2)), source="crates")
    first, second = lab.read()
    assert before <= first.occurred_at <= dt.datetime.now(dt.UTC)
    assert first.recorded_at == second.recorded_at >= before


def test_every_row_is_its_own_commit(lab: el.Lab) -> None:
    lab.ingest(opened(crates(1, 2, 3, at=hours(0, 0, 1))), source="crates", recorded_at="occurred_at")
    assert lab.read().arrow().column("commit").to_pylist() == [1, 2, 3]


def test_an_append_goes_on_where_the_ingest_ended(lab: el.Lab) -> None:
    lab.ingest([opened(crates(1, 2, at=hours(0, 2))), closed(crates(1, at=hours(1)))], source="crates")
    assert lab.append("crate-1", [CrateOpened(7)], expected=2).positions == (4,)
    with pytest.raises(el.Conflict) as conflict:
        lab.append("crate-2", [CrateClosed(2)], expected=0)
    assert [e.data for e in conflict.value.events] == [CrateOpened(2)]


def test_what_was_done_is_told(lab: el.Lab) -> None:
    lab.append("crate-0", [CrateOpened(0)])
    done = lab.ingest([opened(crates(1, 2, at=hours(0, 2))), closed(crates(1, at=hours(1)))], source="crates")
    assert (done.source, done.events, done.already, done.first, done.last) == ("crates", 3, 0, 2, 4)
    assert done.by_type == {"CrateOpened": 2, "CrateClosed": 1}
    assert (lab.ingested("crates"), lab.ingested("others"), lab.head) == (3, 0, 4)


def test_rows_of_one_ingest_may_go_to_several_categories(lab: el.Lab) -> None:
    lab.ingest([opened(crates(1, 3, at=hours(0, 2))), closed(crates(2, 4, at=hours(1, 3)), stream="lid-{n}")], source="crates")
    assert [e.stream for e in lab.read()] == ["crate-1", "lid-2", "crate-3", "lid-4"]
    assert [e.data.n for e in lab.read(el.category("lid"))] == [2, 4]


# -- order -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=1, max_size=4), st.booleans())
def test_sources_are_merged_by_time_and_ties_keep_their_order(times: list[list[int]], imported: bool) -> None:
    tagged = [[(at, i, row) for row, at in enumerate(listed)] for i, listed in enumerate(times)]
    parts = [
        opened(crates(*(i * 100 + row for _, i, row in rows), at=hours(*(at for at, _, _ in rows))), stream="crate-all")
        for rows in tagged
    ]
    with el.scratch() as lab:
        lab.ingest(parts, source="crates", recorded_at="occurred_at" if imported else "now")
        expected = sorted((key for rows in tagged for key in rows), key=lambda key: key[0])
        assert numbers(lab) == [i * 100 + row for _, i, row in expected]
        assert [e.version for e in lab.read()] == list(range(1, len(expected) + 1))


def test_a_single_source_without_times_keeps_the_order_of_its_rows(lab: el.Lab) -> None:
    lab.ingest(opened(crates(3, 1, 2)), source="crates")
    assert numbers(lab) == [3, 1, 2]


def test_several_sources_need_a_time_each(lab: el.Lab) -> None:
    with pytest.raises(IngestRefused, match="merged by time") as refused:
        lab.ingest([opened(crates(1, at=hours(0))), closed(crates(1))], source="crates")
    assert "name the column of its time" in refused.value.hint
    assert lab.head == 0


# -- imported history ------------------------------------------------------------------------------------------------------


def test_imported_history_was_known_when_it_happened(lab: el.Lab) -> None:
    lab.ingest([opened(crates(1, 2, at=hours(0, 2))), closed(crates(1, at=hours(1)))], source="old", recorded_at="occurred_at")
    assert [e.recorded_at for e in lab.read()] == [e.occurred_at for e in lab.read()] == hours(0, 1, 2)
    seen = [[type(e.data).__name__ for e in lab.at(at).read()] for at in hours(-1, 0, 0.5, 1, 2, 9)]
    assert seen == [[], ["CrateOpened"], ["CrateOpened"], *[["CrateOpened", "CrateClosed", "CrateOpened"][:n] for n in (2, 3, 3)]]


def test_what_is_not_imported_history_was_known_only_when_it_was_ingested(lab: el.Lab) -> None:
    lab.ingest(opened(crates(1, 2, at=hours(0, 2))), source="old")
    assert len(lab.at(NOON + dt.timedelta(hours=3)).read()) == 0
    assert len(lab.at(dt.datetime.now(dt.UTC)).read()) == 2


def test_imported_history_needs_times(lab: el.Lab) -> None:
    with pytest.raises(IngestRefused, match="imported history needs occurred_at="):
        lab.ingest(opened(crates(1)), source="old", recorded_at="occurred_at")
    with pytest.raises(InvalidValue, match="recorded_at='then'"):
        lab.ingest(opened(crates(1)), source="old", recorded_at="then")  # type: ignore[arg-type]
    assert lab.head == 0


def test_imported_history_before_the_last_record_is_refused(lab: el.Lab) -> None:
    lab.ingest(opened(crates(1, 2, at=hours(0, 2))), source="old", recorded_at="occurred_at")
    with pytest.raises(IngestRefused, match=r"begins at 2026-03-01T13:00:00.*, before the store's last record at 2026-03-01T14"):
        lab.ingest(closed(crates(1, at=hours(1))), source="older", recorded_at="occurred_at")
    assert (lab.head, lab.ingested("older")) == (2, 0)
    lab.ingest(closed(crates(1, 2, at=hours(2, 3))), source="newer", recorded_at="occurred_at")
    lab.append("crate-1", [CrateOpened(9)])
    with pytest.raises(IngestRefused, match="before the store's last record"):
        lab.ingest(closed(crates(1, at=hours(4))), source="newest", recorded_at="occurred_at")
    assert numbers(lab) == [1, 2, 1, 2, 9]


# -- once ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded_at", ["now", "occurred_at"])
@pytest.mark.usefixtures("chunks_of_three")
def test_the_same_source_again_adds_nothing(lab: el.Lab, recorded_at: Any) -> None:
    parts = [opened(crates(*range(5), at=hours(*range(5)))), closed(crates(*range(3), at=hours(*range(3))))]
    first = lab.ingest(parts, source="crates", recorded_at=recorded_at)
    before = told(lab.read())
    again = lab.ingest(parts, source="crates", recorded_at=recorded_at)
    assert (first.events, first.already, again.events, again.already) == (8, 0, 0, 8)
    assert (again.first, again.last, again.by_type) == (first.first, first.last, first.by_type)
    assert told(lab.read()) == before


def test_the_same_rows_in_another_form_are_the_same_source(lab: el.Lab, tmp_path: Path) -> None:
    frame = crates(1, 2, at=hours(0, 1))
    frame.with_columns(pl.col("at").dt.to_string("iso:strict")).write_csv(tmp_path / "crates.csv")
    frame.write_parquet(tmp_path / "crates.parquet")
    forms: list[Any] = [frame, frame.lazy(), frame.to_arrow(), tmp_path / "crates.csv", str(tmp_path / "crates.parquet")]
    done = [lab.ingest(el.rows(CrateOpened, f, stream="crate-{n}", occurred_at="at"), source="crates").events for f in forms]
    assert done == [2, 0, 0, 0, 0]


def test_a_source_without_times_is_the_same_at_any_time_and_by_anyone(lab: el.Lab) -> None:
    with lab.context(actor="ann"):
        lab.ingest(opened(crates(1, 2)), source="crates")
    with lab.context(actor="bob"):
        assert lab.ingest(opened(crates(1, 2)), source="crates").already == 2
    assert {e.actor for e in lab.read()} == {"ann"}


CHANGES: dict[str, Callable[[], list[el.Rows]]] = {
    "a value": lambda: [opened(crates(1, 9, at=hours(0, 1)), stream="crate-x")],
    "a time": lambda: [opened(crates(1, 2, at=hours(0, 1.5)), stream="crate-x")],
    "a stream": lambda: [opened(crates(1, 2, at=hours(0, 1)), stream="crate-y")],
    "the tags": lambda: [opened(crates(1, 2, at=hours(0, 1)), stream="crate-x", tags=["new"])],
    "the type": lambda: [closed(crates(1, 2, at=hours(0, 1)), stream="crate-x")],
    "the order": lambda: [opened(crates(2, 1, at=hours(0, 1)), stream="crate-x")],
    "more rows": lambda: [opened(crates(1, 2, 3, at=hours(0, 1, 2)), stream="crate-x")],
    "fewer rows": lambda: [opened(crates(1, at=hours(0)), stream="crate-x")],
    "no rows": lambda: [opened(crates(at=[]), stream="crate-x")],
    "no sources": list,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changed_is_refused(lab: el.Lab, change: str) -> None:
    lab.ingest(opened(crates(1, 2, at=hours(0, 1)), stream="crate-x"), source="crates")
    with pytest.raises(IngestRefused, match="source 'crates' was ingested before with"):
        lab.ingest(CHANGES[change](), source="crates")
    assert numbers(lab) == [1, 2]


def test_a_source_that_was_live_is_not_imported_history_later(lab: el.Lab) -> None:
    lab.ingest(opened(crates(1, 2, at=hours(0, 1))), source="crates")
    with pytest.raises(IngestRefused, match="was ingested before with other rows"):
        lab.ingest(opened(crates(1, 2, at=hours(0, 1))), source="crates", recorded_at="occurred_at")


def test_digests_of_another_form_are_not_compared_but_the_number_of_rows_is(
    lab: el.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(ingesting, "_DIGEST_FORM", 1)
        lab.ingest(opened(crates(1, 2), stream="crate-x"), source="crates")
    assert lab.ingest(opened(crates(1, 3), stream="crate-x"), source="crates").already == 2
    with pytest.raises(IngestRefused, match="2 rows then, 3 now"):
        lab.ingest(opened(crates(1, 2, 3), stream="crate-x"), source="crates")
    assert numbers(lab) == [1, 2]


def over_nothing(frame: pl.DataFrame, lists: list[str]) -> pa.Table:
    """The same rows, with something in memory where a list is null."""
    table = frame.to_arrow()
    for name in lists:
        column = table.column(name).combine_chunks()
        missing = column.is_null()
        full = pc.if_else(missing, pa.scalar([None, None], column.type), column)
        dirty = pa.LargeListArray.from_arrays(full.offsets, full.values, mask=missing)
        table = table.set_column(table.column_names.index(name), name, dirty)
    return table


@given(data=st.data())
def test_how_the_rows_lie_in_memory_is_no_change_of_a_source(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 20))
    text, truth = st.text("aä€", max_size=3), st.booleans()
    rows = [
        {
            "item": str(i),
            "yes": data.draw(st.none() | truth),
            "word": data.draw(st.none() | text),
            "flags": data.draw(st.none() | st.lists(st.none() | truth, max_size=3)),
            "words": data.draw(st.none() | st.lists(st.none() | text, max_size=3)),
        }
        for i in range(count)
    ]
    kinds = {"item": pl.String, "yes": pl.Boolean, "word": pl.String, "flags": pl.List(pl.Boolean), "words": pl.List(pl.String)}

    def frame(some: list[dict[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame(some, schema=kinds)

    cut = data.draw(st.integers(0, count))
    before, after = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    layouts = [
        frame(rows),
        pl.concat([frame(rows[:cut]), frame(rows[cut:])], rechunk=False),
        frame([*rows[:1] * before, *rows, *rows[:1] * after]).slice(before, count),
        frame(rows[::-1])[::-1].cast(kinds),
        over_nothing(frame(rows), ["flags", "words"]),
    ]
    with el.scratch() as lab:
        for i, layout in enumerate(layouts):
            done = lab.ingest(el.rows("Noted", layout, stream="note-{item}"), source="notes")
            assert (done.events, done.already) == ((0, count) if i else (count, 0))


@pytest.mark.usefixtures("chunks_of_three")
def test_a_change_in_any_chunk_is_found(lab: el.Lab) -> None:
    lab.ingest(opened(crates(*range(8))), source="crates")
    for row in range(8):
        changed = [n if n != row else 99 for n in range(8)]
        with pytest.raises(IngestRefused, match=f"chunk {row // 3} differs"):
            lab.ingest(opened(crates(*changed)), source="crates")
    for rows in (1, 3, 5, 7, 9):
        with pytest.raises(IngestRefused, match=f"8 rows then, {rows} now"):
            lab.ingest(opened(crates(*range(rows))), source="crates")
    assert numbers(lab) == list(range(8))


def test_two_names_are_two_sources(lab: el.Lab) -> None:
    lab.ingest(opened(crates(1)), source="monday")
    lab.ingest(opened(crates(1)), source="tuesday")
    assert len({e.event_id for e in lab.read()}) == 2
    assert [(e.stream, e.version) for e in lab.read()] == [("crate-1", 1), ("crate-1", 2)]
    with pytest.raises(InvalidName, match="cannot name a source"):
        lab.ingest(opened(crates(1)), source="")


def test_each_tenant_has_its_own_sources(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", tenant="acme") as lab:
        assert lab.ingest(opened(crates(1)), source="crates").events == 1
        with lab.context(tenant="other"):
            assert lab.ingest(opened(crates(1)), source="crates").events == 1
        assert (lab.head, numbers(lab), lab.ingested("crates")) == (2, [1], 1)
        ids = [e.event_id for e in lab.read()]
        with lab.context(tenant="other"):
            assert [e.event_id for e in lab.read()] != ids
    with (
        el.open(tmp_path / "log", tenant=el.ALL) as every,
        pytest.raises(Unsupported, match="ingest asks for one tenant"),
    ):
        every.ingest(opened(crates(1)), source="more")


def test_a_lab_that_only_reads_takes_nothing_in(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.append("crate-1", [CrateOpened(1)])
    with el.open(tmp_path / "log", read_only=True) as lab, pytest.raises(ReadOnly):
        lab.ingest(opened(crates(2)), source="crates")


def test_nothing_to_ingest_is_no_failure(lab: el.Lab) -> None:
    done = lab.ingest(opened(crates(at=[])), source="crates")
    assert (done.events, done.already, done.first, done.last, done.by_type) == (0, 0, 0, 0, {"CrateOpened": 0})
    assert lab.ingest([], source="crates").events == 0
    assert lab.ingest(opened(crates(1, at=hours(0))), source="crates").events == 1


# -- ids of your own -------------------------------------------------------------------------------------------------------

ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)


def test_rows_may_bring_their_ids(lab: el.Lab) -> None:
    lab.ingest(opened(crates(1, 2, id=[str(ONE), TWO.hex]), event_id="id"), source="crates")
    assert [e.event_id for e in lab.read()] == [ONE, TWO]
    lab.ingest(opened(crates(3, id=[uuid.UUID(int=3).bytes]), event_id="id"), source="more")
    assert [e.event_id.int for e in lab.read()] == [1, 2, 3]


def test_a_late_retry_by_expected_version_knows_ingested_ids(lab: el.Lab) -> None:
    lab.ingest(opened(crates(1, id=[str(ONE)]), event_id="id"), source="crates")
    assert lab.append("crate-1", [el.new(CrateOpened(1), id=ONE)], expected=0).repeated
    with pytest.raises(DuplicateEvent, match="says something else"):
        lab.append("crate-1", [el.new(CrateOpened(5), id=ONE)], expected=0)
    assert lab.head == 1


@pytest.mark.parametrize("ids", [[str(ONE), str(ONE)], [str(ONE), None]])
def test_an_id_that_is_missing_or_occurs_twice_is_refused_with_its_row(lab: el.Lab, ids: list[str | None]) -> None:
    with pytest.raises(IngestRefused, match="is missing or occurs twice") as refused:
        lab.ingest(opened(crates(1, 2, id=ids), event_id="id"), source="crates")
    assert (refused.value.row, refused.value.column, lab.head) == (1 if ids[1] else 2, "id", 0)


def test_an_id_in_two_sources_is_refused(lab: el.Lab) -> None:
    parts = [part(crates(1, at=hours(0), id=[str(ONE)]), event_id="id") for part in (opened, closed)]
    with pytest.raises(IngestRefused, match=f"{ONE} occurs in several sources"):
        lab.ingest(parts, source="crates")
    assert lab.head == 0


@pytest.mark.usefixtures("chunks_of_three")
def test_an_id_that_is_in_the_log_already_is_refused(lab: el.Lab) -> None:
    lab.append("crate-1", [CrateClosed(0), el.new(CrateOpened(1), id=ONE)])
    ids = [str(uuid.UUID(int=n)) for n in range(10, 14)]
    with pytest.raises(IngestRefused, match=f"{ONE} is in the log already, at position 2") as refused:
        lab.ingest(opened(crates(*range(5), id=[*ids, str(ONE)]), event_id="id"), source="crates")
    assert (refused.value.position, lab.head) == (2, 2)
    rows = opened(crates(*range(4), id=ids), event_id="id")
    assert (lab.ingest(rows, source="crates").events, lab.ingest(rows, source="crates").already) == (4, 4)
    with pytest.raises(IngestRefused, match="is in the log already, at position 3"):
        lab.ingest(rows, source="the same under another name")


# -- in chunks, each all or nothing ----------------------------------------------------------------------------------------


class Stopping(Bar):
    """Progress that is stopped by somebody after so many rows."""

    def __init__(self, after: int, how: BaseException) -> None:
        self.left, self.how = after, how

    def advance(self, events: int) -> None:
        self.left -= events
        if self.left <= 0:
            raise self.how


@pytest.mark.parametrize("recorded_at", ["now", "occurred_at"])
@pytest.mark.parametrize("how", [KeyboardInterrupt(), MemoryError()])
@pytest.mark.usefixtures("chunks_of_three")
def test_what_was_written_stays_and_the_next_ingest_goes_on_from_there(
    lab: el.Lab, monkeypatch: pytest.MonkeyPatch, how: BaseException, recorded_at: Any
) -> None:
    parts = [opened(crates(*range(0, 20, 2), at=hours(*range(10)))), closed(crates(*range(1, 20, 2), at=hours(*range(10))))]
    with monkeypatch.context() as stopped:
        stopped.setattr("eventlab.lab.default_progress", lambda what, total: Stopping(7, how))
        with pytest.raises(type(how)):
            lab.ingest(parts, source="crates", recorded_at=recorded_at)
    assert (lab.ingested("crates"), numbers(lab)) == (9, list(range(9)))
    if recorded_at == "now":
        lab.append("crate-0", [CrateOpened(99)])
    done = lab.ingest(parts, source="crates", recorded_at=recorded_at)
    assert (done.events, done.already, done.first) == (11, 9, 1)
    assert [n for n in numbers(lab) if n != 99] == list(range(20))


@pytest.mark.usefixtures("chunks_of_three")
def test_a_source_that_grew_has_changed_also_where_its_chunks_were_whole(lab: el.Lab) -> None:
    lab.ingest(opened(crates(*range(6))), source="crates")
    with pytest.raises(IngestRefused, match=r"chunk 0 differs \(6 rows then, 8 now in all\)"):
        lab.ingest(opened(crates(*range(8))), source="crates")
    assert numbers(lab) == list(range(6))


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_an_ingest_goes_on_whatever_the_size_of_chunks_was(lab: el.Lab, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rows = opened(crates(*range(20)))
    with monkeypatch.context() as stopped:
        stopped.setattr(ingesting, "CHUNK_ROWS", 3)
        stopped.setattr("eventlab.lab.default_progress", lambda what, total: Stopping(7, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            lab.ingest(rows, source="crates")
    monkeypatch.setattr(ingesting, "CHUNK_ROWS", size)
    assert [lab.ingest(rows, source="crates").events for _ in range(2)] == [11, 0]
    assert numbers(lab) == list(range(20))


@pytest.mark.usefixtures("chunks_of_three")
def test_a_bad_last_row_keeps_the_first_chunk_out_too(lab: el.Lab) -> None:
    frame = pl.DataFrame({"n": [*map(str, range(10)), "ten"]})
    with pytest.raises(IngestRefused, match="row 11, column 'n': 'ten' is not a whole number") as refused:
        lab.ingest(el.rows(CrateOpened, frame, stream="crate-x"), source="crates")
    assert (refused.value.row, refused.value.column, refused.value.value) == (11, "n", "ten")
    assert (lab.head, lab.ingested("crates")) == (0, 0)
    with pytest.raises(IngestRefused, match="CrateClosed from a frame: there is no column 'n'"):
        lab.ingest([opened(crates(1, at=hours(0))), closed(crates(1, at=hours(0)).drop("n"), stream="crate-x")], source="crates")
    assert lab.head == 0


@pytest.mark.usefixtures("chunks_of_three")
def test_a_type_that_differs_from_the_stored_one_is_refused_before_anything_is_written(lab: el.Lab) -> None:
    lab.ingest(el.rows("LidLifted", crates(1), stream="lid-{n}"), source="lids")
    lids = el.rows("LidLifted", crates(1, at=hours(9), more=[1]), stream="lid-{n}", occurred_at="at")
    with pytest.raises(SchemaConflict, match="LidLifted version 1 differs"):
        lab.ingest([opened(crates(*range(8), at=hours(*range(8)))), lids], source="crates")
    assert (lab.head, lab.ingested("crates")) == (1, 0)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_process_that_is_killed_between_chunks_loses_nothing_and_doubles_nothing(
    tmp_path: Path, how: signal.Signals, code: int
) -> None:
    path, count, chunk = tmp_path / "log", 40_000, 60
    chance, reached = random.Random(how), 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, str(INGESTER), str(path), str(count), str(chunk)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout
        while (line := process.stdout.readline()) and json.loads(line) < reached + 5 * chunk:
            pass
        time.sleep(chance.uniform(0, 0.03))
        process.send_signal(how)
        said = [json.loads(said) for said in process.communicate(timeout=60)[0].splitlines(keepends=True) if said.endswith("\n")]
        assert process.returncode == code
        with el.open(path) as lab:
            assert max(said, default=0) <= lab.ingested("scales") == lab.head < count
            assert lab.head % chunk == 0
            assert lab.head > reached, "each process goes on where the one before it stopped"
            reached = lab.head
            assert lab.read().frame()["n"].sort().to_list() == list(range(reached))
    with el.open(path) as lab, el.scratch() as whole:
        done = lab.ingest(readings(count), source="scales", recorded_at="occurred_at")
        assert (done.already, done.events) == (reached, count - reached)
        whole.ingest(readings(count), source="scales", recorded_at="occurred_at")
        assert lab.read().frame().equals(whole.read().frame())


def test_ctrl_c_leaves_a_store_that_opens_and_takes_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingesting, "CHUNK_ROWS", 3)
    rows = opened(crates(*range(20)))
    with el.open(tmp_path / "log") as lab, monkeypatch.context() as stopped:
        stopped.setattr("eventlab.lab.default_progress", lambda what, total: Stopping(10, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            lab.ingest(rows, source="crates")
    with el.open(tmp_path / "log") as lab:
        assert lab.ingested("crates") == 12
        assert lab.sql("select count(*) as n from events.crate")["n"].to_list() == [12]
        lab.ingest(rows, source="crates")
        assert numbers(lab) == list(range(20))


def test_two_processes_that_ingest_one_source_store_it_once(tmp_path: Path) -> None:
    path, count, chunk = tmp_path / "log", 3_000, 100
    both = [
        subprocess.Popen(
            [sys.executable, str(INGESTER), str(path), str(count), str(chunk)],
            stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    with el.open(path) as lab:
        assert lab.head == lab.ingested("scales") == count
        assert lab.read(el.events("ScaleRead")).frame()["n"].sort().to_list() == list(range(count))


def test_what_another_ingests_of_a_source_meanwhile_is_not_held_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_ids(part: el.Rows) -> el.Rows:
        ids = [str(uuid.UUID(int=n, version=4)) for n in part.data["n"]]
        return replace(part, data=part.data.with_columns(id=pl.Series(ids)), event_id="id")

    parts = [with_ids(part) for part in readings(3_000)]
    monkeypatch.setattr(ingesting, "CHUNK_ROWS", 100)
    with el.open(tmp_path / "log", maintain=False) as lab, el.open(tmp_path / "log", maintain=False) as other:
        chunks, asked = type(lab.store).chunks, []

        def slow(store: Any, *of: Any) -> Any:
            done = chunks(store, *of)
            if not asked:
                asked.append(of)
                other.ingest(parts, source="scales", recorded_at="occurred_at")
            return done

        monkeypatch.setattr(type(lab.store), "chunks", slow)
        done = lab.ingest(parts, source="scales", recorded_at="occurred_at")
        assert asked
        assert (done.first, done.last, lab.head) == (1, 3_000, 3_000)
