"""Rows: how a frame or a file is read as events: streams, times, nulls, zones, names, tags, nested records, no classes."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from integration.parcels import TYPES, ParcelDescribed, Place, Priority, Sender, Size, frame_of

import eventlab as el
from eventlab.errors import IngestRefused, InvalidName, InvalidValue, ModelError, Refused, SourceMissing
from eventlab.integration.rows import prepare

UTC = dt.UTC
DAY = dt.date(2026, 3, 1)
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=UTC)


@el.event
class BoxWeighed:
    """A box stood on the scale."""

    label: str
    grams: int | None = None
    price: el.Money = el.money(1)


@dataclass(frozen=True)
class Corner:
    x: float
    y: float | None


@dataclass(frozen=True)
class Spot:
    shelf: str
    corner: Corner | None
    checked: dt.datetime


@el.event
class BoxPlaced:
    """A box was put somewhere."""

    spot: Spot


@el.event
class BoxMoved:
    """A box may have come from somewhere, and went somewhere, or nobody knows."""

    source: Spot | None
    target: Spot | None = None


@el.event
class BoxMarked:
    """A box got its marks."""

    customer: el.Tag[str]
    lot: el.Tag[int | None] = None
    owner: el.Tag[uuid.UUID | None] = None
    mode: el.Tag[Literal["air", "sea"]] = "sea"
    heavy: el.Tag[bool] = False


@pytest.fixture
def lab() -> Iterator[el.Lab]:
    with el.scratch() as lab:
        yield lab


def data(lab: el.Lab, *rows: el.Rows) -> list[Any]:
    """The events that these rows become."""
    lab.ingest(rows, source=f"at {lab.head}")
    return [event.data for event in lab.read()]


def refused(lab: el.Lab, rows: el.Rows, match: str, kind: type[Exception] = IngestRefused) -> Any:
    """The refusal of these rows, after which nothing is stored."""
    with pytest.raises(kind, match=match) as why:
        lab.ingest(rows, source="refused")
    assert (lab.head, lab.ingested("refused")) == (0, 0)
    return why.value


def boxes(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"label": ["a", "b"]} | columns)


def weighed(frame: Any, **given: Any) -> el.Rows:
    return el.rows(BoxWeighed, frame, **{"stream": "box-{label}"} | given)


# -- where rows come from --------------------------------------------------------------------------------------------------

COLUMNS: dict[str, list[Any]] = {"label": ["a", "b"], "grams": [250, None], "price": [Decimal("9.50"), Decimal("1.00")]}
EXPECTED = [BoxWeighed("a", 250, el.money("9.50")), BoxWeighed("b", None, el.money(1))]


class Tabular:
    """What pandas, Ibis and others are to us: something that gives its rows as an Arrow stream."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


FRAMES: dict[str, Callable[[pa.Table], Any]] = {
    "an Arrow table": lambda table: table,
    "an Arrow table in chunks": lambda table: pa.concat_tables([table[:1], table[1:]]),
    "an Arrow record batch": lambda table: table.to_batches()[0],
    "an Arrow reader": lambda table: table.to_reader(),
    "dictionaries and large strings": lambda table: table.set_column(
        0, "label", table["label"].cast(pa.large_string()).dictionary_encode()
    ),
    "a Polars frame": pl.from_arrow,
    "a lazy Polars frame": lambda table: pl.from_arrow(table).lazy(),
    "a DuckDB relation": duckdb.from_arrow,
    "anything with an Arrow stream": Tabular,
    "pandas, whose index has no name": lambda table: Tabular(table.append_column("__index_level_0__", pa.array([7, 9]))),
}


@pytest.mark.parametrize("form", FRAMES)
def test_rows_come_from_frames_of_any_kind(lab: el.Lab, form: str) -> None:
    frame = FRAMES[form](pa.table(COLUMNS))
    assert data(lab, weighed(frame)) == EXPECTED


@pytest.mark.parametrize("form", ["pandas, whose index has no name"])
def test_a_nameless_index_is_no_field_of_a_type_without_a_class(lab: el.Lab, form: str) -> None:
    frame = FRAMES[form](pa.table(COLUMNS))
    assert data(lab, el.rows("BoxSeen", frame, stream="box-{label}"))[0] == {
        "label": "a",
        "grams": 250,
        "price": Decimal("9.50"),
    }


FILES: dict[str, str | Callable[[Path], object]] = {
    "boxes.csv": "label,grams,price\na,250,9.50\nb,,1\n",
    "BOXES.CSV": "\ufefflabel,grams,price\r\na,250,9.50\r\nb,,1.00\r\n",
    "boxes.tsv": "label\tgrams\tprice\na\t250\t9.50\nb\t\t1\n",
    "boxes.jsonl": '{"label": "a", "grams": 250, "price": "9.50"}\n\n{"price": 1, "label": "b"}\n',
    "boxes.ndjson": '\ufeff{"label": "a", "grams": 250, "price": "9.50"}\r\n{"label": "b", "grams": null, "price": "1"}',
    "boxes.parquet": lambda path: pq.write_table(pa.table(COLUMNS), path),
    "year=2026/boxes.parquet": lambda path: pq.write_table(pa.table(COLUMNS), path),
    "boxes[1].csv": "label,grams,price\na,250,9.50\nb,,1\n",
    "boxes*.jsonl": '{"label": "a", "grams": 250, "price": "9.50"}\n{"label": "b", "price": "1"}\n',
    "boxes?.parquet": lambda path: pq.write_table(pa.table(COLUMNS), path),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", [str, Path])
def test_rows_come_from_files_of_any_kind(lab: el.Lab, tmp_path: Path, name: str, form: type) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    content = FILES[name]
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    else:
        content(path)
    # A name is no pattern: this one would match it.
    path.with_stem("boxes1").write_bytes(b"not read")
    assert data(lab, weighed(form(path))) == EXPECTED


def test_a_file_of_the_users_own_folder_may_begin_with_a_tilde(
    lab: el.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "boxes.csv").write_text("label\na\n")
    assert data(lab, weighed("~/boxes.csv")) == [BoxWeighed("a")]


def test_in_csv_an_empty_cell_is_nothing_and_quotes_are_empty_text(lab: el.Lab, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text('id,note\n1,""\n2,\n3,"a ""b"",\nc"\n')
    rows = el.rows("BoxNoted", tmp_path / "notes.csv", stream="box-{id}", fields={"note": "note"})
    assert [found["note"] for found in data(lab, rows)] == ["", None, 'a "b",\nc']


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "cannot be read: empty CSV"),
    "ragged.csv": (b"label,grams\na,1\nb,2,3\n", "cannot be read"),
    "open.csv": (b'label,grams\na,"1\nb,2\n', "cannot be read"),
    "latin.csv": (b"label\nZ\xfcrich\n", "cannot be read: invalid utf-8"),
    "cut.parquet": (b"PAR1", "cannot be read"),
    "bad.jsonl": (b'{"label": "a"}\n{"label": \n', r"bad\.jsonl: row 2 is not a JSON object: Expecting value"),
    "list.jsonl": (b'{"label": "a"}\n[1]\n', "row 2 is not a JSON object: .* is no object"),
    "twice.jsonl": (b'{"label": "a", "label": "b"}\n', "row 1 is not a JSON object: the key 'label' occurs twice"),
    "latin.jsonl": (b'{"label": "\xfc"}\n', "row 1 is not a JSON object: .*utf-8"),
    "half.jsonl": (b'{"\\ud800": 1}\n', "row 1 is not a JSON object: .*surrogates not allowed"),
    "deep.jsonl": (b'{"label": "a"}\n' + b"[" * 100_000, "row 2 is not a JSON object"),
    "boxes.xlsx": (b"", r"files of type \.xlsx are not read"),
    "boxes": (b"", "files of type no type are not read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_refused(lab: el.Lab, tmp_path: Path, name: str) -> None:
    content, why = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    error = refused(lab, weighed(tmp_path / name), why)
    assert error.path == str(tmp_path / name)


def test_a_file_that_is_not_there_and_a_folder_are_named(lab: el.Lab, tmp_path: Path) -> None:
    refused(lab, weighed(tmp_path / "boxes.csv"), "there is no file .*boxes.csv", SourceMissing)
    (tmp_path / "boxes.csv").mkdir()
    refused(lab, weighed(tmp_path / "boxes.csv"), "that is no file")


@pytest.mark.parametrize("thing", [[{"label": "a"}], {"label": ["a"]}, 5, pl.Series([1]), Tabular(pa.chunked_array([[1]]))])
def test_what_holds_no_rows_is_refused(lab: el.Lab, thing: Any) -> None:
    refused(lab, weighed(thing), "holds no rows|cannot be read as a table")


# -- JSON lines hold each value as it is -----------------------------------------------------------------------------------

MIXED: list[tuple[list[str], str]] = [
    (['"label": "a", "grams": 1', '"label": "b", "grams": 1.5'], "row 2, column 'grams': 1.5 is not int"),
    (['"label": "a", "grams": 1', '"label": "b", "grams": true'], "row 2, column 'grams': True is not int"),
    (['"label": "a", "grams": 1', '"label": "b", "grams": "1"'], "row 2, column 'grams': '1' is not int"),
    (['"label": "a", "grams": 9007199254740993', '"label": "b", "grams": 1.0'], "row 2, column 'grams': 1.0 is not int"),
    (['"label": "a", "grams": 9223372036854775808'], "row 1, column 'grams': 9223372036854775808 is not int .*beyond 64 bits"),
    (['"label": "a"', '"label": 5'], "column 'label' of type Object names the stream"),
    (['"label": "a", "grams": 1', '"label": "b", "grams": [1]'], r"row 2, column 'grams': \[1\] is not int"),
    (['"label": "a", "price": 9.50'], "column 'price' has type Float64 instead of exact decimals"),
    (['"label": "a", "price": "1"', '"label": "b", "price": 9.50'], "row 2, column 'price': 9.5 is not Decimal"),
]


@pytest.mark.parametrize(("lines", "why"), MIXED)
def test_values_of_several_types_in_json_lines_are_not_made_into_one(
    lab: el.Lab, tmp_path: Path, lines: list[str], why: str
) -> None:
    (tmp_path / "boxes.jsonl").write_text("".join(f"{{{line}}}\n" for line in lines))
    refused(lab, weighed(tmp_path / "boxes.jsonl"), why)


def test_half_a_surrogate_pair_in_json_lines_is_refused_with_its_row(lab: el.Lab, tmp_path: Path) -> None:
    (tmp_path / "boxes.jsonl").write_text('{"id": 1, "label": "a"}\n{"id": 2, "label": "\\ud800"}\n')
    error = refused(lab, weighed(tmp_path / "boxes.jsonl", stream="box-{id}"), "half of a surrogate pair")
    assert (error.row, error.column) == (2, "label")


def test_in_json_lines_each_object_keeps_its_own_keys_and_numbers(lab: el.Lab, tmp_path: Path) -> None:
    lines = [{"id": 1, "amounts": {"a": 1}}, {"id": 2, "amounts": {"b": 2**53 + 1}}, {"id": 3, "amounts": {}}]

    @el.event
    class BoxCounted:
        """What was in a box was counted."""

        amounts: dict[str, int]

    (tmp_path / "counts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = data(lab, el.rows(BoxCounted, tmp_path / "counts.jsonl", stream="box-{id}"))
    assert [event.amounts for event in found] == [line["amounts"] for line in lines]


def test_without_a_class_json_lines_are_typed_where_one_type_holds_them_exactly(lab: el.Lab, tmp_path: Path) -> None:
    lines = [
        {"id": 1, "n": 1, "x": 1, "ok": True, "words": ["a"], "at": {"x": 1}, "never": None},
        {"id": 2, "n": None, "x": 1.5, "words": [], "at": {"y": "b"}},
    ]
    (tmp_path / "seen.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert data(lab, el.rows("BoxSeen", tmp_path / "seen.jsonl", stream="box-{id}")) == [
        {"id": 1, "n": 1, "x": 1.0, "ok": True, "words": ["a"], "at": {"x": 1, "y": None}, "never": None},
        {"id": 2, "n": None, "x": 1.5, "ok": None, "words": [], "at": {"x": None, "y": "b"}, "never": None},
    ]


@pytest.mark.parametrize("values", [[1, 2, "3"], [1, True], [2**53 + 1, 0.5], [[1], ["a"]], [1, 2**63], ["a", {"a": 1}]])
def test_without_a_class_a_column_of_several_types_is_refused_with_the_row_that_differs(
    lab: el.Lab, tmp_path: Path, values: list[Any]
) -> None:
    (tmp_path / "seen.jsonl").write_text("\n".join(json.dumps({"id": i, "v": v}) for i, v in enumerate(values)))
    error = refused(
        lab, el.rows("BoxSeen", tmp_path / "seen.jsonl", stream="box-{id}"), "is not of one type with the rows before"
    )
    assert (error.row, error.column, error.value) == (len(values), "v", values[-1])


# -- a bad value of every type ---------------------------------------------------------------------------------------------

PARCEL = ParcelDescribed(
    number=1, weight=1.5, reading=0.5, fragile=True, note="n", remark=None, label="l", count=1, insured=False,
    owner=uuid.UUID(int=1), priority=Priority.LOW, size=Size.LARGE, mode="air", raw=b"x", price=el.money(1),
    exact=Decimal("1.10"), rate=Decimal("0.5"), share=Decimal("0.5"), at=NOON, day=DAY, clock=dt.time(12), took=dt.timedelta(1),
    parts=[1], names=frozenset("a"), ratios=(0.5,), prices=[el.money(1)], moments=[NOON], amounts={"a": 1}, days={"a": [DAY]},
    sender=Sender("s", Place("c", 1), DAY, 0.5), reply_to=None, stops=[Place("c", None)], anything=[1], choice=5,
)  # fmt: skip
SENDER = '{"name": "s", "place": {"city": "c", "floor": 1}, "since": "2026-03-01", "rating": 0.5}'

#: For every field a value in text, as a CSV file has it, that it takes, and one that it does not. (Any text is a note.)
TEXTS: dict[str, tuple[str | None, str | None]] = {
    "number": ("1", "1.0"), "weight": ("1.5", "nan"), "reading": ("0.5", "heavy"), "fragile": ("true", "yes"),
    "note": ("n", None), "remark": (None, None), "label": ("l", "x" * 600), "count": ("1", "9223372036854775808"),
    "insured": ("False", "0"), "owner": (str(uuid.UUID(int=1)), "me"), "priority": ("low", "LOW"), "size": ("3", "2"),
    "mode": ("air", "road"), "raw": ("eA==", "*"), "price": ("1.00", "1.555"), "exact": ("1.10", "NaN"),
    "rate": ("0.5", "0.0000000001"), "share": ("0.50", "1.0"), "at": ("2026-03-01T12:00Z", "2026-02-30T12:00Z"),
    "day": ("2026-03-01", "2026-02-30"), "clock": ("12:00", "24:00"), "took": ("86400000000", "1.5"),
    "parts": ("[1]", "[true]"), "names": ('["a"]', "[1]"), "ratios": ("[0.5]", "[NaN]"), "prices": ('["1"]', "[1.5]"),
    "moments": ('["2026-03-01T12:00Z"]', '["2026-03-01T12:00"]'), "amounts": ('{"a": 1}', '{"a": 1.0}'),
    "days": ('{"a": ["2026-03-01"]}', '{"a": ["x"]}'), "sender": (SENDER, '{"name": "s"}'),
    "reply_to": (None, SENDER.replace("2026-03-01", "soon")), "stops": ('[{"city": "c"}]', '[{"city": 5}]'),
    "anything": ("[1]", "{"), "choice": ("5", "1.5"),
}  # fmt: skip
GOOD = pl.DataFrame(
    {"id": "1"} | {name: good for name, (good, _) in TEXTS.items()}, schema=dict.fromkeys(["id", *TEXTS], pl.String)
)


def described(frame: pl.DataFrame) -> el.Rows:
    return el.rows(ParcelDescribed, frame, stream="parcel-{id}")


def test_text_of_every_type_is_read(lab: el.Lab) -> None:
    assert set(TEXTS) == set(TYPES)
    assert data(lab, described(GOOD)) == [PARCEL]


@pytest.mark.parametrize("field", [field for field, (_, bad) in TEXTS.items() if bad is not None])
def test_a_bad_value_of_any_field_is_refused_with_row_and_column(lab: el.Lab, field: str) -> None:
    bad = GOOD.with_columns(pl.lit(TEXTS[field][1]).alias(field))
    error = refused(lab, described(pl.concat([GOOD, bad])), "ParcelDescribed from a frame: row 2")
    assert (error.row, error.column) == (2, field)
    assert f"column {field!r}" in error.message
    assert "nothing was stored" in error.hint


OPTIONAL = {"remark", "count", "owner", "size", "exact", "day", "reply_to", "anything"}


@pytest.mark.parametrize("field", sorted(TYPES))
def test_nothing_is_a_value_only_where_the_field_says_so(lab: el.Lab, field: str) -> None:
    whole = frame_of([PARCEL, PARCEL], id=["1", "2"])
    rows = described(whole.with_columns(pl.when(pl.col("id") == "1").then(field)))
    if field in OPTIONAL:
        assert getattr(data(lab, rows)[1], field) is None
    else:
        error = refused(lab, rows, "is missing, and|is not Sender")
        assert (error.row, error.column) == (2, field)


@pytest.mark.parametrize("field", sorted(TYPES))
def test_a_missing_column_of_any_field_is_refused_by_name(lab: el.Lab, field: str) -> None:
    error = refused(lab, described(frame_of([PARCEL], id=["1"]).drop(field)), f"there is no column '{field}'")
    assert error.column == field


# -- names and defaults ----------------------------------------------------------------------------------------------------


def test_fields_map_to_the_columns_that_hold_them(lab: el.Lab) -> None:
    frame = pl.DataFrame({"Box No.": ["a"], "Weight (g)": ["250"]})
    rows = weighed(frame, stream="box-{Box No.}", fields={"label": "Box No.", "grams": "Weight (g)"})
    assert data(lab, rows) == [BoxWeighed("a", 250)]


def test_a_mapped_column_that_is_not_there_is_refused_although_the_field_has_a_default(lab: el.Lab) -> None:
    error = refused(lab, weighed(boxes(), fields={"grams": "Weight"}), "BoxWeighed from a frame: there is no column 'Weight'")
    assert error.hint == "it has label; fields={'field': 'column'} maps names"


def test_a_field_that_the_class_does_not_have_is_refused(lab: el.Lab) -> None:
    error = refused(lab, weighed(boxes(), fields={"gram": "grams"}), "BoxWeighed has no field 'gram'")
    assert error.hint == "it has label, grams, price"


def test_a_column_that_is_not_there_takes_the_default(lab: el.Lab) -> None:
    assert data(lab, weighed(boxes())) == [BoxWeighed("a"), BoxWeighed("b")]
    assert data(lab, el.rows(BoxMoved, boxes(**{"source.shelf": [None, None]}).with_columns(
        *(pl.lit(None).alias(f"source.{name}") for name in ("corner.x", "corner.y", "checked"))
    ), stream="box-{label}"))[2:] == [BoxMoved(None), BoxMoved(None)]  # fmt: skip


def test_a_column_that_is_there_never_takes_the_default(lab: el.Lab) -> None:
    error = refused(lab, weighed(boxes(price=["1", None])), "row 2, column 'price': None is missing, and BoxWeighed.price")
    assert (error.row, error.column) == (2, "price")


def test_columns_that_no_field_has_are_left_out(lab: el.Lab) -> None:
    assert data(lab, weighed(boxes(colour=["red", "blue"]))) == [BoxWeighed("a"), BoxWeighed("b")]


def test_only_events_and_names_have_rows(lab: el.Lab) -> None:
    refused(lab, el.rows(Corner, boxes(), stream="box-{label}"), "Corner is not an event", ModelError)
    for name in ("box weighed", "", "_Box", "1Box"):
        refused(lab, el.rows(name, boxes(), stream="box-{label}"), "cannot name a type", InvalidName)


# -- streams ---------------------------------------------------------------------------------------------------------------

STREAMS: dict[str, list[str]] = {
    "box-{label}": ["box-a", "box-b"],
    "box-7": ["box-7", "box-7"],
    "box-{day}-{n}/{label}!": ["box-2026-03-01-1/a!", "box-2026-03-01-22/b!"],
    "box-{case:concept:name}": ["box-c 1", "box-c-2"],
    "box-{Case ID}": ["box-x", "box-y"],
    "box-{a!r:>3}": ["box-p", "box-q"],
    "box-{{{label}}}": ["box-{a}", "box-{b}"],
    "box_2-x{n}": ["box_2-x1", "box_2-x22"],
    "box-{kind}": ["box-s", "box-t"],
}


@pytest.mark.parametrize("template", STREAMS)
def test_a_template_over_columns_names_the_streams(lab: el.Lab, template: str) -> None:
    frame = boxes(
        day=[DAY, DAY], n=[1, 22], **{"case:concept:name": ["c 1", "c-2"], "Case ID": ["x", "y"], "a!r:>3": ["p", "q"]}
    ).with_columns(kind=pl.Series(["s", "t"], dtype=pl.Categorical))
    lab.ingest(weighed(frame, stream=template), source="boxes")
    assert [event.stream for event in lab.read()] == STREAMS[template]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{label}", "is not the name of a stream"), ("box", "is not the name of a stream"), ("Box-{label}", "is not the name"),
        ("{label}-box", "cannot come from a column"), ("box{label}-1", "cannot come from a column"),
        ("box-{label", "expected '}'"), ("box-}", "Single '}'"), ("", "is not the name of a stream"),
        ("box-", "is not the name of a stream"),
    ],
)  # fmt: skip
def test_a_template_that_names_no_stream_is_refused(lab: el.Lab, template: str, why: str) -> None:
    refused(lab, weighed(boxes(), stream=template), why, InvalidName)


@pytest.mark.parametrize("template", ["box-{id}", "box-{}", "box-{label:>3}", "box-{label.upper}"])
def test_a_template_over_a_column_that_is_not_there_is_refused(lab: el.Lab, template: str) -> None:
    refused(lab, weighed(boxes(), stream=template), "there is no column")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["a", None], "None is missing, and it names the stream"), (["a", ""], "cannot name a stream"),
        (["a", "b\n"], "cannot name a stream"), (["a", "b" * 600], "cannot name a stream"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_name_a_stream_is_refused_with_its_row(lab: el.Lab, values: list[str | None], why: str) -> None:
    assert refused(lab, weighed(boxes(id=values), stream="box-{id}"), why).row == 2


@pytest.mark.parametrize("values", [[1.5, 2.0], [True, False], [b"a", b"b"], [NOON, NOON], [["a"], ["b"]]])
def test_a_type_whose_text_is_not_certain_names_no_stream(lab: el.Lab, values: list[Any]) -> None:
    assert "cast it to text" in refused(lab, weighed(boxes(id=values), stream="box-{id}"), "names the stream").hint


@pytest.mark.parametrize("stream", ["box-1", "box-{label}"])
def test_a_frame_without_rows_is_no_events(lab: el.Lab, stream: str) -> None:
    empty = boxes()[:0]
    for rows in (weighed(empty, stream=stream, tags=["x"]), el.rows("BoxSeen", empty, stream=stream)):
        assert data(lab, rows) == []


# -- times -----------------------------------------------------------------------------------------------------------------


def test_each_column_has_its_zone(lab: el.Lab) -> None:
    frame = pl.DataFrame({
        "id": ["1"], "left": ["2013-02-08 13:00"], "landed": ["2013-02-08 19:00"], "seen": ["2013-02-08T18:00Z"],
    })  # fmt: skip
    rows = el.rows(
        "BoxFlown", frame, stream="box-{id}", occurred_at="left", tz="America/New_York", zones={"landed": "Europe/Berlin"},
        fields={"left": "left", "landed": "landed"},
    )  # fmt: skip
    lab.ingest(rows, source="flown")
    (event,) = lab.read()
    assert event.occurred_at == dt.datetime(2013, 2, 8, 18, tzinfo=UTC)
    assert event.data == {"left": "2013-02-08 13:00", "landed": "2013-02-08 19:00"}, "text without a class stays text"

    @el.event
    class BoxFlownHome:
        """A box came by air."""

        left: dt.datetime
        landed: dt.datetime
        seen: dt.datetime

    part = el.rows(BoxFlownHome, frame, stream="box-{id}", tz="America/New_York", zones={"landed": "Europe/Berlin"})
    six = dt.datetime(2013, 2, 8, 18, tzinfo=UTC)
    assert data(lab, part)[1:] == [BoxFlownHome(six, six, six)]


def test_a_wall_clock_of_a_type_without_a_class_needs_its_zone(lab: el.Lab) -> None:
    frame = boxes(at=[dt.datetime(2013, 7, 1, 12)] * 2)  # noqa: DTZ001
    refused(lab, el.rows("BoxSeen", frame, stream="box-{label}"), "column 'at' holds wall-clock times without a zone")
    found = data(lab, el.rows("BoxSeen", frame, stream="box-{label}", zones={"at": "Asia/Kathmandu"}))
    assert found[0]["at"] == dt.datetime(2013, 7, 1, 6, 15, tzinfo=UTC)


def test_a_zone_for_a_column_that_is_not_there_is_refused(lab: el.Lab) -> None:
    assert refused(lab, weighed(boxes(), zones={"at": "UTC"}), "there is no column 'at'").column == "at"


@pytest.mark.parametrize("at", ["2013-03-10 02:30", "2013-11-03 01:30"])
def test_a_time_of_an_event_that_clocks_skipped_or_showed_twice_is_refused(lab: el.Lab, at: str) -> None:
    rows = weighed(boxes(at=["2013-03-09 02:30", at]), occurred_at="at", tz="America/New_York")
    error = refused(lab, rows, f"row 2, column 'at': '{at}' happened twice or never on the clocks of America/New_York")
    assert (error.row, error.column, error.value) == (2, "at", at)


def test_every_event_has_its_time(lab: el.Lab) -> None:
    error = refused(lab, weighed(boxes(at=[NOON, None]), occurred_at="at"), "is missing: every event has its time")
    assert (error.row, error.column) == (2, "at")
    refused(lab, weighed(boxes(), occurred_at="when"), "there is no column 'when'")


def test_the_column_of_time_may_be_a_field_too(lab: el.Lab) -> None:
    @el.event
    class BoxTimed:
        """A box was seen at a time."""

        at: dt.datetime

    rows = el.rows(BoxTimed, boxes(at=["2013-07-01 08:00"] * 2), stream="box-{label}", occurred_at="at", tz="America/New_York")
    lab.ingest(rows, source="timed")
    assert {(event.occurred_at, event.data.at) for event in lab.read()} == {(dt.datetime(2013, 7, 1, 12, tzinfo=UTC),) * 2}


# -- nothing ---------------------------------------------------------------------------------------------------------------


def test_spellings_of_nothing_hold_for_every_column_or_for_one(lab: el.Lab) -> None:
    frame = pl.DataFrame({"label": ["NA", "n/a"], "grams": ["NA", "n/a"], "id": [1, 2]})
    refused(lab, weighed(frame, stream="box-{id}", nulls=["NA", "n/a"]), "row 1, column 'label': None is missing")
    refused(lab, weighed(frame, stream="box-{id}", nulls={"grams": ["NA"]}), "row 2, column 'grams': 'n/a'")
    found = data(lab, weighed(frame, stream="box-{id}", nulls={"grams": ["NA", "n/a"]}))
    assert found == [BoxWeighed("NA"), BoxWeighed("n/a")]


def test_spellings_of_nothing_are_whole_values_as_they_are_written(lab: el.Lab) -> None:
    frame = pl.DataFrame({"label": ["NAN", "na", " NA", ""], "id": [1, 2, 3, 4]})
    found = data(lab, weighed(frame, stream="box-{id}", nulls=["NA"]))
    assert [event.label for event in found] == ["NAN", "na", " NA", ""]


def test_a_missing_time_or_name_may_be_spelled_too(lab: el.Lab) -> None:
    rows = weighed(boxes(at=["2013-07-01T12:00Z", "-"]), occurred_at="at", nulls=["-"])
    assert refused(lab, rows, "is missing: every event has its time").row == 2
    assert refused(lab, weighed(boxes(id=["1", "-"]), stream="box-{id}", nulls=["-"]), "it names the stream").row == 2


def test_spellings_of_nothing_among_numbers_of_json_lines(lab: el.Lab, tmp_path: Path) -> None:
    (tmp_path / "boxes.jsonl").write_text('{"label": "a", "grams": "NA"}\n{"label": "b", "grams": 5}\n')
    assert data(lab, weighed(tmp_path / "boxes.jsonl", nulls=["NA"])) == [BoxWeighed("a"), BoxWeighed("b", 5)]


@pytest.mark.parametrize("nulls", ["NA", {"label": "NA"}, [None], {"label": [-9]}])
def test_spellings_of_nothing_are_lists_of_text(lab: el.Lab, nulls: Any) -> None:
    refused(lab, weighed(boxes(), nulls=nulls), "each of its letters would be a null|a spelling of nothing is text", InvalidValue)


def test_a_spelling_for_a_column_that_is_not_there_is_refused(lab: el.Lab) -> None:
    assert refused(lab, weighed(boxes(), nulls={"gram": ["NA"]}), "there is no column 'gram'").column == "gram"


# -- tags ------------------------------------------------------------------------------------------------------------------


def test_tags_are_spelled_as_an_append_spells_them(lab: el.Lab) -> None:
    event = BoxMarked("c9", 7, uuid.UUID(int=5), "air", True)
    lab.append("box-1", [el.new(event, tags=["new", "new"]), BoxMarked("c1")])
    columns: dict[str, Any] = {
        "customer": ["c9", "c1"], "lot": [7, None], "owner": [str(event.owner), None], "mode": ["air", "sea"],
        "heavy": [True, False],
    }  # fmt: skip
    lab.ingest(el.rows(BoxMarked, pl.DataFrame(columns)[:1], stream="box-1", tags=["new", "new"]), source="one")
    lab.ingest(el.rows(BoxMarked, pl.DataFrame(columns)[1:], stream="box-1"), source="two")
    first, second, *again = [event.tags for event in lab.read()]
    assert first == ("customer:c9", "lot:7", f"owner:{event.owner}", "mode:air", "heavy:True", "new")
    assert again == [first, second]
    assert [e.data for e in lab.read(el.tag(customer="c9"))] == [event, event]


def test_a_default_is_a_tag_too(lab: el.Lab) -> None:
    lab.ingest(el.rows(BoxMarked, pl.DataFrame({"customer": ["c9"]}), stream="box-1"), source="marked")
    assert [event.tags for event in lab.read()] == [("customer:c9", "mode:sea", "heavy:False")]


@pytest.mark.parametrize("value", ["x" * 600, "two\nlines"])
def test_a_value_that_cannot_be_a_tag_is_refused_with_row_and_column(lab: el.Lab, value: str) -> None:
    frame = pl.DataFrame({"name": ["a", value]})
    error = refused(lab, el.rows(BoxMarked, frame, stream="box-1", fields={"customer": "name"}), "cannot be a tag")
    assert (error.row, error.column) == (2, "name")


@pytest.mark.parametrize("tags", ["vip", ["a\nb"], [""], ["x" * 600], [f"t{i}" for i in range(65)]])
def test_constant_tags_are_checked(lab: el.Lab, tags: Any) -> None:
    refused(lab, weighed(boxes(), tags=tags), "tag", Refused)


# -- nested dataclasses ----------------------------------------------------------------------------------------------------

SPOT = Spot("s1", Corner(1.5, None), NOON)
BARE = Spot("s2", None, NOON)
SPOT_STRUCTS = [
    {"shelf": "s1", "corner": {"x": 1.5, "y": None}, "checked": NOON},
    {"shelf": "s2", "corner": None, "checked": NOON},
]
SPOT_TEXTS = [
    '{"shelf": "s1", "corner": {"x": 1.5, "y": null}, "checked": "2026-03-01T13:00+01:00"}',
    '{"shelf": "s2", "checked": "2026-03-01T12:00:00Z"}',
]
SPOT_COLUMNS: dict[str, list[Any]] = {
    "spot.shelf": ["s1", "s2"], "spot.corner.x": ["1.5", None], "spot.corner.y": [None, None],
    "spot.checked": ["2026-03-01 13:00", "2026-03-01 13:00"],
}  # fmt: skip


def test_a_nested_dataclass_comes_as_a_struct_as_json_or_as_a_column_a_field(lab: el.Lab) -> None:
    frames = [
        boxes(spot=SPOT_STRUCTS),
        boxes(spot=SPOT_TEXTS),
        boxes(**SPOT_COLUMNS),
        boxes(**{name: SPOT_COLUMNS[name] for name in ("spot.shelf", "spot.checked")}, **{"spot.corner": ['{"x": 1.5}', None]}),
    ]
    parts = [el.rows(BoxPlaced, frame, stream="box-{label}", tz="Europe/Berlin") for frame in frames]
    for part in parts:
        lab.ingest(part, source=f"at {lab.head}")
    assert [event.data.spot for event in lab.read()] == [SPOT, BARE] * 4


def test_json_lines_hold_nested_dataclasses(lab: el.Lab, tmp_path: Path) -> None:
    (tmp_path / "spots.jsonl").write_text("".join(f'{{"label": "{i}", "spot": {text}}}\n' for i, text in enumerate(SPOT_TEXTS)))
    found = data(lab, el.rows(BoxPlaced, tmp_path / "spots.jsonl", stream="box-{label}"))
    assert [event.spot for event in found] == [SPOT, BARE]


def test_columns_of_a_nested_dataclass_have_nulls_zones_and_names_of_their_own(lab: el.Lab) -> None:
    frame = boxes(**{f"at.{name.removeprefix('spot.')}": values for name, values in SPOT_COLUMNS.items()}).with_columns(
        pl.col("at.corner.x").fill_null("NA")
    )
    rows = el.rows(
        BoxPlaced, frame, stream="box-{label}", fields={"spot": "at"}, nulls={"at.corner.x": ["NA"]},
        zones={"at.checked": "Europe/Berlin"},
    )  # fmt: skip
    assert [event.spot for event in data(lab, rows)] == [SPOT, BARE]


def test_an_optional_nested_dataclass_is_none_where_all_its_columns_are(lab: el.Lab) -> None:
    columns = {name.replace("spot", "source"): [*values[:1], None] for name, values in SPOT_COLUMNS.items()}
    found = data(lab, el.rows(BoxMoved, boxes(**columns), stream="box-{label}", tz="Europe/Berlin"))
    assert found == [BoxMoved(SPOT), BoxMoved(None)]
    lab.append("box-c", found)
    *_, first, second = lab.read(el.events(BoxMoved))
    assert [first.data, second.data] == found


NESTED_FLAWS: list[tuple[dict[str, list[Any]], str, str]] = [
    ({"spot.shelf": ["s1", None]}, "spot.shelf", "None is missing, and BoxPlaced.spot.shelf is declared str"),
    ({"spot.corner.x": ["1.5", "wide"]}, "spot.corner.x", "'wide' is not a number"),
    (
        {"spot.corner.x": ["1.5", None], "spot.corner.y": [None, "2"]},
        "spot.corner.x",
        "BoxPlaced.spot.corner.x is declared float",
    ),
    ({"spot.checked": ["2026-03-01 13:00", "2026-03-29 02:30"]}, "spot.checked", "happened twice or never"),
]


@pytest.mark.parametrize(("flaw", "column", "why"), NESTED_FLAWS)
def test_a_bad_value_in_a_column_of_a_nested_dataclass_is_refused_with_that_column(
    lab: el.Lab, flaw: dict[str, list[Any]], column: str, why: str
) -> None:
    rows = el.rows(BoxPlaced, boxes(**SPOT_COLUMNS | flaw), stream="box-{label}", tz="Europe/Berlin")
    error = refused(lab, rows, why)
    assert (error.row, error.column) == (2, column)


def test_a_missing_column_of_a_nested_dataclass_is_refused_by_name(lab: el.Lab) -> None:
    frame = boxes(**SPOT_COLUMNS).drop("spot.checked")
    error = refused(lab, el.rows(BoxPlaced, frame, stream="box-{label}", tz="UTC"), "there is no column 'spot.checked'")
    assert error.column == "spot.checked"
    refused(lab, el.rows(BoxPlaced, boxes(), stream="box-{label}"), "there is no column 'spot'")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('{"shelf": 5, "checked": "2026-03-01T12:00Z"}', "is declared str"), ('{"shelf": "s", "room": 1}', "no field 'room'"),
        ('{"shelf": "s", "checked": "2026-03-01T12:00"}', "it has no time zone"), ("{", "Expecting"), ("[1]", "is no dict"),
        ("null", "is None"), (None, "is None"),
    ],
)  # fmt: skip
def test_a_bad_nested_dataclass_in_json_is_refused_with_its_row(lab: el.Lab, bad: str | None, why: str) -> None:
    error = refused(lab, el.rows(BoxPlaced, boxes(spot=[SPOT_TEXTS[0], bad]), stream="box-{label}"), why)
    assert (error.row, error.column) == (2, "spot")


def test_a_nested_time_finer_than_a_microsecond_is_refused(lab: el.Lab) -> None:
    kind = pl.Struct({"shelf": pl.String, "corner": pl.Null, "checked": pl.Datetime("ns", "UTC")})
    frame = pl.DataFrame({"label": ["a"], "t": [1]}).with_columns(
        spot=pl.struct(shelf=pl.lit("s"), corner=pl.lit(None), checked=pl.col("t").cast(pl.Datetime("ns", "UTC"))).cast(kind)
    )
    error = refused(lab, el.rows(BoxPlaced, frame, stream="box-{label}"), "is finer than a microsecond")
    assert (error.row, error.column) == (1, "spot")


# -- types without a class -------------------------------------------------------------------------------------------------


def test_a_type_without_a_class_has_the_columns_of_its_frame(lab: el.Lab) -> None:
    frame = pl.DataFrame({
        "id": ["a"], "n": [1], "x": [1.5], "ok": [True], "price": [Decimal("1.50")], "day": [DAY], "clock": [dt.time(1)],
        "took": [dt.timedelta(1)], "raw": [b"x"], "words": [["a", None]], "spot": [{"x": 1, "days": [DAY]}], "none": [None],
        "seen": [NOON], "nan": [float("nan")],
    })  # fmt: skip
    lab.ingest(el.rows("BoxSeen", frame, stream="box-{id}"), source="seen")
    (event,) = lab.read()
    assert event.type == "BoxSeen"
    found = dict(event.data)
    assert str(found.pop("nan")) == "nan"
    assert found == {name: frame[name].to_list()[0] for name in frame.columns if name != "nan"}
    assert lab.sql("select n, price, words from types.box_seen").rows() == [(1, Decimal("1.50"), ["a", None])]
    assert lab.read().frame()["took"].to_list() == [dt.timedelta(1)]


def test_its_times_and_ids_are_envelope_and_no_fields_unless_they_are_named(lab: el.Lab) -> None:
    frame = boxes(at=[NOON, NOON], key=[str(uuid.UUID(int=i)) for i in (1, 2)])
    given: dict[str, Any] = {"stream": "box-{label}", "occurred_at": "at", "event_id": "key"}
    assert data(lab, el.rows("BoxSeen", frame, **given)) == [{"label": "a"}, {"label": "b"}]
    with el.scratch() as other:
        assert data(other, el.rows("BoxSeen", frame, **given, fields={"when": "at"}))[0] == {"when": NOON}
    with el.scratch() as other:
        assert data(other, el.rows("BoxSeen", frame, **given, fields={})) == [{}, {}]


def test_a_map_keeps_its_keys(lab: el.Lab) -> None:
    table = pa.table({"id": ["a"], "m": pa.array([[("k", 1), ("j", 2)]], pa.map_(pa.string(), pa.int64()))})
    assert data(lab, el.rows("BoxSeen", table, stream="box-{id}"))[0]["m"] == {"j": 2, "k": 1}


@pytest.mark.parametrize("name", ["a b", "1st", "_id", "case:id", ""])
def test_a_column_that_cannot_name_a_field_is_refused_and_can_be_renamed(lab: el.Lab, name: str) -> None:
    frame = boxes(**{name: [1, 2]})
    error = refused(lab, el.rows("BoxSeen", frame, stream="box-{label}"), "cannot name a field")
    assert (error.column, error.hint) == (name, f"fields={{'a_name': {name!r}}} renames it")
    assert data(lab, el.rows("BoxSeen", frame, stream="box-{label}", fields={"a_name": name})) == [{"a_name": 1}, {"a_name": 2}]


def test_columns_that_sql_cannot_tell_apart_are_refused(lab: el.Lab) -> None:
    refused(lab, el.rows("BoxSeen", boxes(LABEL=[1, 2]), stream="box-{label}"), "'label' and 'LABEL'", InvalidName)


def test_an_integer_that_no_column_holds_is_refused_with_its_row(lab: el.Lab) -> None:
    frame = boxes(n=pl.Series([1, 2**64 - 1], dtype=pl.UInt64))
    error = refused(
        lab, el.rows("BoxSeen", frame, stream="box-{label}"), "18446744073709551615 is not a whole number within 64 bits"
    )
    assert (error.row, error.column) == (2, "n")


def test_a_process_without_classes_reads_what_one_with_classes_ingested(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.ingest(el.rows("BoxSeen", boxes(n=[1, 2]), stream="box-{label}"), source="seen")
    with el.open(tmp_path / "log") as lab:
        assert [event.data for event in lab.read(el.events("BoxSeen"))] == [{"label": "a", "n": 1}, {"label": "b", "n": 2}]


# -- prepared --------------------------------------------------------------------------------------------------------------


def test_what_is_prepared_says_how_many_rows_and_what_they_are() -> None:
    prepared = prepare(weighed(boxes(at=[NOON, NOON]), occurred_at="at"))
    assert (len(prepared), prepared.category, prepared.schema.name, prepared.where) == (
        2,
        "box",
        "BoxWeighed",
        "BoxWeighed from a frame",
    )
    assert prepared.payload.columns == list(prepared.schema.columns)
    assert (prepared.ids, prepared.tags) == (None, None)
