"""Export: events as files that other programs read, and that an ingest takes back without a loss."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integration.parcels import ParcelDescribed, finite, parcels, told

import eventlab as el
from eventlab.errors import UnknownType, Unsupported

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SUFFIXES = ["parquet", "csv", "jsonl"]

# Text has one NaN, and JSON none, nor an infinity.
READINGS = {"parquet": st.floats(), "csv": st.floats(allow_nan=False) | st.just(math.nan), "jsonl": finite}


@el.event
class PalletStacked:
    """A pallet was filled."""

    weight: el.Money
    crates: list[el.Money]
    took: dt.timedelta
    seal: uuid.UUID
    photo: bytes
    on: dt.date
    at: dt.time
    marks: dict[str, int]
    reading: el.AnyFloat


@el.event
class PalletShipped:
    """A pallet left the yard."""

    gate: str


STACKED = PalletStacked(
    el.money("9.50"), [el.money("0.10"), el.money(4)], dt.timedelta(seconds=1.5), uuid.UUID(int=7), b"\0\xff",
    dt.date(2026, 1, 2), dt.time(18, 30), {"b": 2, "a": 1}, math.nan,
)  # fmt: skip


@pytest.fixture
def lab() -> Iterator[el.Lab]:
    with el.scratch(clock=lambda: START, seed=1) as lab:
        lab.append("pallet-1", [STACKED], tags=["vip"])
        lab.append("pallet-2-b", [PalletShipped('north, "old"')], occurred_at=START - dt.timedelta(hours=1))
        yield lab


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=20)
@given(data=st.data())
def test_what_was_exported_and_ingested_again_says_the_same(suffix: str, data: st.DataObject) -> None:
    ids, made = st.sampled_from(["a", "b", "é-1"]), parcels(READINGS[suffix])
    events = data.draw(st.lists(st.tuples(ids, made), min_size=1, max_size=6))
    with TemporaryDirectory() as folder, el.scratch() as before, el.scratch() as after:
        for hours, (id_, parcel) in enumerate(events):
            before.append(f"parcel-{id_}", [parcel], occurred_at=START + dt.timedelta(hours=hours))
        done = before.export(Path(folder, f"log.{suffix}"))
        assert (done.events, done.bytes) == (len(events), done.path.stat().st_size)
        rows = el.rows(ParcelDescribed, done.path, stream="parcel-{_id}", occurred_at="_occurred_at", event_id="_event_id")
        after.ingest(rows, source=done.path.name)
        assert told(after.read()) == told(before.read())
        assert [(e.event_id, e.occurred_at) for e in after.read()] == [(e.event_id, e.occurred_at) for e in before.read()]


# -- what the files hold ---------------------------------------------------------------------------------------------------


def test_parquet_holds_the_types_that_a_frame_has(lab: el.Lab, tmp_path: Path) -> None:
    done = lab.export(tmp_path / "log.parquet")
    assert pl.read_parquet(done.path).equals(lab.read().frame())
    assert pq.read_metadata(done.path).num_rows == 2


def test_csv_holds_text_that_a_person_reads(lab: el.Lab, tmp_path: Path) -> None:
    done = lab.export(tmp_path / "log.csv")
    with done.path.open(newline="", encoding="utf-8") as file:
        stacked, shipped = csv.DictReader(file)
    assert {name: stacked[name] for name in ("_position", "_stream", "_category", "_id", "_version", "_type")} == {
        "_position": "1", "_stream": "pallet-1", "_category": "pallet", "_id": "1", "_version": "1", "_type": "PalletStacked",
    }  # fmt: skip
    assert (stacked["_recorded_at"], shipped["_occurred_at"]) == ("2026-01-01T00:00:00.000000Z", "2025-12-31T23:00:00.000000Z")
    assert (stacked["_tags"], json.loads(stacked["crates"]), json.loads(stacked["marks"])) == (
        '["vip"]', ["0.10", "4.00"], [{"key": "a", "value": 1}, {"key": "b", "value": 2}],
    )  # fmt: skip
    assert [stacked[name] for name in ("weight", "took", "seal", "photo", "on", "at", "reading")] == [
        "9.50", "1500000", str(uuid.UUID(int=7)), "AP8=", "2026-01-02", "18:30:00.000000", "NaN",
    ]  # fmt: skip
    assert (shipped["_id"], shipped["gate"], shipped["weight"]) == ("2-b", 'north, "old"', "")


def test_json_lines_hold_one_object_an_event(lab: el.Lab, tmp_path: Path) -> None:
    lines = lab.export(tmp_path / "log.jsonl").path.read_text(encoding="utf-8").splitlines()
    stacked, shipped = map(json.loads, lines)
    told_: dict[str, Any] = {name: stacked[name] for name in ("_position", "_tags", "weight", "crates", "took", "photo", "at")}
    assert told_ == {
        "_position": 1, "_tags": ["vip"], "weight": "9.50", "crates": ["0.10", "4.00"], "took": 1_500_000, "photo": "AP8=",
        "at": "18:30:00.000000",
    }  # fmt: skip
    assert stacked["reading"] is None, "JSON has no NaN"
    assert (shipped["gate"], shipped["_tags"], shipped["crates"]) == ('north, "old"', [], None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_filter_says_what_is_written_and_so_which_columns_there_are(lab: el.Lab, tmp_path: Path, suffix: str) -> None:
    done = lab.export(tmp_path / f"log.{suffix}", el.events(PalletShipped))
    assert done.events == 1
    with el.scratch() as other:
        other.ingest(el.rows(PalletShipped, done.path, stream="pallet-{_id}"), source="again")
        assert [(e.stream, e.data) for e in other.read()] == [("pallet-2-b", PalletShipped('north, "old"'))]
    assert "weight" not in done.path.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_events_are_a_file_too(lab: el.Lab, tmp_path: Path, suffix: str) -> None:
    done = lab.export(tmp_path / f"log.{suffix}", el.stream("pallet-9"))
    assert (done.events, done.path.exists()) == (0, True)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_in_text_moments_are_to_the_microsecond_with_their_offset(tmp_path: Path, suffix: str) -> None:
    first, last = dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)
    with el.scratch() as lab:
        lab.append("pallet-1", [el.new(PalletShipped("a"), occurred_at=first), el.new(PalletShipped("b"), occurred_at=last)])
        text = lab.export(tmp_path / f"log.{suffix}").path.read_text(encoding="utf-8")
    assert "0001-01-01T00:00:00.000000Z" in text
    assert "9999-12-31T23:59:59.999999Z" in text


def test_a_type_without_a_class_is_exported_and_ingested_again(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, 2], "price": [Decimal("1.50"), None], "words": [["a"], []]})
    with el.scratch() as lab, el.scratch() as other:
        lab.ingest(el.rows("ShelfCounted", frame, stream="shelf-{n}"), source="a")
        done = lab.export(tmp_path / "log.parquet")
        fields = {"n": "n", "price": "price", "words": "words"}
        other.ingest(el.rows("ShelfCounted", done.path, stream="shelf-{_id}", fields=fields), source="a")
        expected = [{"n": 1, "price": Decimal("1.50"), "words": ["a"]}, {"n": 2, "price": None, "words": []}]
        assert [e.data for e in other.read()] == [e.data for e in lab.read()] == expected


# -- whole or not at all ---------------------------------------------------------------------------------------------------


def test_another_kind_of_file_is_refused_and_nothing_is_written(lab: el.Lab, tmp_path: Path) -> None:
    for name in ("log.xlsx", "log"):
        with pytest.raises(Unsupported, match=r"events are not written as .*") as refused:
            lab.export(tmp_path / name)
        assert ".parquet, .csv or .jsonl" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced_by_a_file(lab: el.Lab, tmp_path: Path) -> None:
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(Unsupported, match="is a folder"):
        lab.export(tmp_path / "log.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_an_export_replaces_the_earlier_one_and_leaves_nothing_beside_it(lab: el.Lab, tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.csv"
    lab.export(path)
    lab.append("pallet-1", [PalletShipped("south")])
    assert lab.export(path).events == 3
    assert [file.name for file in path.parent.iterdir()] == ["log.csv"]
    assert pl.read_csv(path).height == 3


def test_a_refused_filter_leaves_the_earlier_export(lab: el.Lab, tmp_path: Path) -> None:
    path = lab.export(tmp_path / "log.csv").path
    before = path.read_bytes()
    with pytest.raises(UnknownType, match="PalletShiped"):
        lab.export(path, el.events("PalletShiped"))
    assert path.read_bytes() == before
