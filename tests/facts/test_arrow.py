"""What PyArrow writes, and how much of it DuckDB and Polars read back, skip, or fail to notice."""

from __future__ import annotations

import datetime as dt
import io
import json
import random
import time
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS = 4096
GROUP = 512
FIRST = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def segment() -> pa.Table:
    """Every type a segment holds, in columns with colons and points in their names."""
    numbers = range(ROWS)
    return pa.table(
        {
            "position": pa.array(numbers, pa.int64()),
            "event_id": pa.array([n.to_bytes(16, "big") for n in numbers], pa.binary(16)),
            "stream": pa.array([f"order-{n * 7919 % ROWS // 2:05d}" for n in numbers]),
            "ts": pa.array([FIRST + dt.timedelta(seconds=n) for n in numbers], pa.timestamp("us", "UTC")),
            "quantity:i64": pa.array([n if n % 3 else None for n in numbers], pa.int64()),
            "addr.city:s": pa.array(["Oslo", "Rome"] * (ROWS // 2)),
            "amount": pa.array([Decimal(n) / 100 for n in numbers], pa.decimal128(18, 2)),
            "exact": pa.array([Decimal(n) / 8 for n in numbers], pa.decimal128(38, 9)),
            "tags": pa.array([["a", "b"], []] * (ROWS // 2), pa.list_(pa.string())),
            "counts": pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
            "lines": pa.array([[{"sku": "x", "n": 1}]] * ROWS, pa.list_(pa.struct([("sku", pa.string()), ("n", pa.int64())]))),
            "day": pa.array([FIRST.date()] * ROWS, pa.date32()),
            "clock": pa.array([dt.time(1, 2, 3, 4)] * ROWS, pa.time64("us")),
        }
    )


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return segment()


@pytest.fixture(scope="module")
def path(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("segments") / "segment.parquet"
    pq.write_table(
        table,
        file,
        row_group_size=GROUP,
        compression="zstd",
        compression_level=1,
        use_dictionary=["stream", "addr.city:s", "tags.list.element"],
        column_encoding=dict.fromkeys(["position", "ts", "quantity:i64"], "DELTA_BINARY_PACKED"),
        write_page_index=True,
        bloom_filter_options={"stream": {"ndv": GROUP, "fpp": 0.01}, "event_id": {"ndv": GROUP, "fpp": 0.01}},
        store_schema=False,
    )
    return file


def test_every_type_and_name_comes_back_from_duckdb_as_it_was_written(table: pa.Table, path: Path) -> None:
    con = duckdb.connect(":memory:")
    con.execute("SET GLOBAL TimeZone='UTC'")
    found = con.sql(f"SELECT * FROM read_parquet(['{path}']) ORDER BY position").to_arrow_table()
    assert found.column_names == table.column_names
    for name in table.column_names:
        if pa.types.is_fixed_size_binary(table[name].type):
            assert found[name].to_pylist() == table[name].to_pylist()
        else:
            assert found[name].cast(table[name].type).equals(table[name]), name
    con.close()


def test_columns_are_encoded_as_asked_also_where_a_name_has_a_point_in_it(path: Path) -> None:
    group = pq.read_metadata(path).row_group(0)
    encodings = {column.path_in_schema: column.encodings for column in map(group.column, range(group.num_columns))}
    assert "RLE_DICTIONARY" in encodings["addr.city:s"]
    assert "RLE_DICTIONARY" in encodings["tags.list.element"]
    assert "DELTA_BINARY_PACKED" in encodings["quantity:i64"]
    assert "RLE_DICTIONARY" not in encodings["event_id"]


def read_bytes(path: Path, where: str, value: object) -> int:
    con = duckdb.connect(":memory:")
    query = f"EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM read_parquet(['{path}']) WHERE {where}"
    plan = json.loads(con.execute(query, {"v": value}).fetchall()[0][1])
    con.close()
    return int(plan["io"]["total_bytes_read"])


@pytest.fixture(scope="module")
def bulky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twenty row groups in the order of positions, without bloom filters and with them; names and ids do not compress."""
    chance = random.Random(7)
    group, rows = 2048, 20 * 2048
    table = pa.table(
        {
            "position": range(rows),
            "event_id": pa.array([chance.randbytes(16) for _ in range(rows)], pa.binary(16)),
            "stream": [chance.randbytes(16).hex() for _ in range(rows)],
        }
    )
    folder = tmp_path_factory.mktemp("bulky")
    options = {"row_group_size": group, "compression": "zstd", "use_dictionary": False, "write_page_index": True}
    pq.write_table(table, folder / "plain.parquet", **options)
    blooms = {name: {"ndv": group, "fpp": 0.01} for name in ("stream", "event_id")}
    pq.write_table(table, folder / "bloom.parquet", bloom_filter_options=blooms, **options)
    return folder / "plain.parquet", folder / "bloom.parquet"


def test_a_lookup_by_position_reads_the_row_group_that_holds_it(bulky: tuple[Path, Path]) -> None:
    plain, _ = bulky
    assert read_bytes(plain, "position BETWEEN $v AND $v + 10", 1000) < read_bytes(plain, "position >= $v", 0) / 5


def test_a_lookup_by_stream_or_id_skips_row_groups_only_where_there_are_bloom_filters(bulky: tuple[Path, Path]) -> None:
    plain, bloom = bulky
    row = pq.read_table(plain).slice(7777, 1).to_pylist()[0]
    for where, value in (("stream = $v", row["stream"]), ("stream = $v", "8" * 32), ("event_id = $v", row["event_id"])):
        assert read_bytes(bloom, where, value) < read_bytes(plain, where, value) / 3, where


def test_position_and_stream_together_are_narrowed_by_both(bulky: tuple[Path, Path]) -> None:
    _, bloom = bulky
    both = read_bytes(bloom, "stream = $v AND position BETWEEN 3000 AND 4000", "8" * 32)
    assert both < read_bytes(bloom, "stream = $v", "8" * 32) / 2


def test_the_same_table_is_written_as_the_same_bytes(table: pa.Table) -> None:
    written = set()
    for _ in range(2):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_index=True)
        written.add(buffer.getvalue())
    assert len(written) == 1


def test_a_flipped_byte_is_read_as_another_value_by_everyone_who_is_not_told_to_check(tmp_path: Path) -> None:
    file = tmp_path / "flipped.parquet"
    sound = list(range(1000))
    pq.write_table(pa.table({"v": sound}), file, compression="none", use_dictionary=False, write_page_checksum=True)
    column = pq.read_metadata(file).row_group(0).column(0)
    damaged = bytearray(file.read_bytes())
    damaged[column.data_page_offset + column.total_compressed_size - 50] ^= 0x10
    file.write_bytes(damaged)
    readers = {
        "duckdb": [v for (v,) in duckdb.connect(":memory:").execute(f"SELECT v FROM '{file}'").fetchall()],
        "polars": pl.read_parquet(file)["v"].to_list(),
        "pyarrow": pq.read_table(file)["v"].to_pylist(),
    }
    wrong = {name: sum(a != b for a, b in zip(read, sound, strict=True)) for name, read in readers.items()}
    assert wrong == {"duckdb": 1, "polars": 1, "pyarrow": 1}
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(file, page_checksum_verification=True)


def test_times_become_python_objects_many_times_slower_than_integers() -> None:
    column = pa.array([0] * 20_000, pa.timestamp("us", "UTC"))

    def seconds(values: pa.Array) -> float:
        start = time.perf_counter()
        values.to_pylist()
        return time.perf_counter() - start

    column[:10].to_pylist()
    assert seconds(column) > 4 * seconds(column.cast(pa.int64()))


def test_a_registered_stream_of_batches_is_read_once(table: pa.Table) -> None:
    con = duckdb.connect(":memory:")
    con.register("stream_of_batches", table.select(["position"]).to_reader())
    assert con.execute("SELECT count(*) FROM stream_of_batches").fetchall() == [(ROWS,)]
    with pytest.raises(duckdb.InvalidInputException, match="already been consumed"):
        con.execute("SELECT count(*) FROM stream_of_batches").fetchall()
    con.close()


def test_duckdb_takes_no_int128_from_polars_and_forgets_that_a_column_is_categorical() -> None:
    con = duckdb.connect(":memory:")
    con.register("kinds", pl.DataFrame({"kind": pl.Series(["a"], dtype=pl.Enum(["a"]))}))
    assert con.sql("SELECT * FROM kinds").pl().schema == {"kind": pl.String()}
    with pytest.raises(duckdb.InvalidInputException):
        con.register("wide", pl.DataFrame({"n": pl.Series([1], dtype=pl.Int128)}))
    con.register("wide", pl.DataFrame({"n": pl.Series([2**100], dtype=pl.Int128)}).cast(pl.Decimal(38, 0)))
    assert con.execute("SELECT n::HUGEINT FROM wide").fetchall() == [(2**100,)]
    con.close()
