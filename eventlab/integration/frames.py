"""Frames of what people have: Polars, Arrow and pandas frames, and files. Nothing is rounded or guessed on the way."""

from __future__ import annotations

import bisect
import re
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.errors import EventlabError, IngestRefused, SourceMissing
from eventlab.integration.convert import UNFIT, loads, refused_value
from eventlab.store.files import free_memory
from eventlab.store.segment import expanded_bytes

SUFFIXES: Final = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
#: What an ingest needs for each row beside the frame, and how many rows it copies at a time.
ROW_BYTES: Final = 64
ROWS_AT_ONCE: Final = 250_000
#: How files begin that gzip, zlib and zstd write.
_COMPRESSED: Final = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda", b"\x28\xb5\x2f\xfd")
_PANDAS_INDEX: Final = re.compile(r"__index_level_\d+__")
#: A panic is what Polars raises over a type or a file that its authors did not think of.
_UNFIT_ARROW: Final = (*UNFIT, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def read(data: Any) -> tuple[pl.DataFrame, str]:
    """A frame of what was given, and what to call it in an error."""
    if isinstance(data, pl.LazyFrame):
        return data.collect(), "a frame"
    if isinstance(data, pl.DataFrame):
        return data, "a frame"
    if isinstance(data, (str, Path)):
        path = Path(data).expanduser()
        return _read_file(path), path.name
    if hasattr(data, "__arrow_c_stream__"):
        try:
            table = pa.table(data)
            for field in table.schema:
                _refuse_type(field.type, field.name, type(data).__name__)
            frame = pl.from_arrow(table)
        except EventlabError:
            raise
        except _UNFIT_ARROW as why:
            raise IngestRefused(
                f"the {type(data).__name__} cannot be read as a table: {why}", hint="one type a column; nothing was stored"
            ) from None
        assert isinstance(frame, pl.DataFrame)
        # What pandas calls the rows is not what they say, unless its index has a name.
        return frame.drop(name for name in frame.columns if _PANDAS_INDEX.fullmatch(name)), "a frame"
    raise IngestRefused(
        f"{type(data).__name__} holds no rows", hint="a Polars, Arrow or pandas frame, or a .parquet, .csv or .jsonl file"
    )


def _refuse_type(kind: pa.DataType, column: str, what: str) -> None:
    """Refuse Arrow types that Polars has no column for, however deep they lie."""
    unknown = (pa.types.is_union, pa.types.is_interval, pa.types.is_run_end_encoded, pa.types.is_decimal256)
    if any(test(kind) for test in unknown):
        raise IngestRefused(
            f"the {what}: column {column!r} has type {kind}, which has no stored form", hint="cast it first", column=column
        )
    for i in range(kind.num_fields):
        _refuse_type(kind.field(i).type, column, what)


def _read_file(path: Path) -> pl.DataFrame:
    if not path.exists():
        raise SourceMissing(f"there is no file {path}", hint="check the path", path=str(path))
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in SUFFIXES:
        what = f"files of type {suffix or 'no type'} are not read" if path.is_file() else "that is no file"
        raise IngestRefused(f"{path}: {what}", hint=", ".join(SUFFIXES), path=str(path))
    try:
        _refuse_compressed(path, suffix)
        if suffix == ".parquet":
            return _read_parquet(path)
        if suffix in (".jsonl", ".ndjson"):
            return _read_json_lines(path)
        # Text first: the declared types say what a column means, not a guess over its first rows.
        return pl.read_csv(path, infer_schema=False, separator="\t" if suffix == ".tsv" else ",", glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as why:
        raise IngestRefused(f"{path} cannot be read: {why}", hint="nothing was stored", path=str(path)) from None


def _refuse_compressed(path: Path, suffix: str) -> None:
    """Text that is compressed is refused: a reader that unpacks it unasked does not know how much will come."""
    with path.open("rb") as file:
        start = file.read(4)
    if suffix in (".csv", ".tsv") and start.startswith(_COMPRESSED):
        raise IngestRefused(f"{path} is compressed", hint="unpack it first; nothing was stored", path=str(path))


def _read_parquet(path: Path) -> pl.DataFrame:
    """A Parquet file, unless it would take more memory than there is: a few hundred bytes of it can hold any number of rows."""
    metadata = pq.read_metadata(path)
    rows = metadata.num_rows
    _refuse_vast(path, rows, expanded_bytes(metadata, range(metadata.num_row_groups)) + rows * ROW_BYTES)
    frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    # Text that occurs again and again is kept once here, and copied for each row when it is stored.
    _refuse_vast(path, rows, int(frame.estimated_size() * min(1.0, ROWS_AT_ONCE / max(1, rows))) * 2)
    return frame


def _refuse_vast(path: Path, rows: int, size: int) -> None:
    free = free_memory()
    if free is not None and size > free:
        raise IngestRefused(
            f"{path} holds {rows:,} rows in {path.stat().st_size:,} bytes, and takes at least {size:,} bytes of memory, of which "
            f"{free:,} are free",
            hint="nothing was stored; ingest it in parts, or where there is more memory",
            path=str(path),
            rows=rows,
        )


def _read_json_lines(path: Path) -> pl.DataFrame:
    """One JSON object a line, its values as they are: a reader that types columns would round, or make text of numbers."""
    columns: dict[str, list[Any]] = {}
    count = 0
    with path.open("rb") as lines:
        for line in lines:
            text = line.removeprefix(b"\xef\xbb\xbf") if not count else line
            if not text.strip():
                continue
            try:
                record = loads(text.decode())
                if not isinstance(record, dict):
                    raise TypeError(f"{record!r} is no object")
                for name, value in record.items():
                    if name not in columns:
                        name.encode()  # a name with half a surrogate pair is none
                    values = columns.setdefault(name, [])
                    values.extend([None] * (count - len(values)))
                    values.append(value)
            except UNFIT as why:
                raise IngestRefused(
                    f"{path.name}: row {count + 1:,} is not a JSON object: {str(why) or type(why).__name__}",
                    hint="nothing was stored",
                    row=count + 1,
                    path=str(path),
                ) from None
            count += 1
    for values in columns.values():
        values.extend([None] * (count - len(values)))
    return pl.DataFrame([_column(name, values) for name, values in columns.items()])


def _column(name: str, values: list[Any]) -> pl.Series:
    """Values of one simple kind as a column of that type; any others stay what they are, for their field to judge."""
    kinds = set(map(type, values)) - {type(None)}
    simple = _SIMPLE.get(next(iter(kinds))) if len(kinds) == 1 else None
    if simple is not None:
        try:
            return pl.Series(name, values, dtype=simple, strict=True)
        except _UNFIT_ARROW:  # integers beyond 64 bits, or half a surrogate pair
            pass
    return pl.Series(name, values, dtype=pl.Object if kinds else pl.Null)


_SIMPLE: Final[dict[type, Any]] = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64, str: pl.String}


def typed(series: pl.Series, where: str) -> pl.Series:
    """A column of Python values as the type that holds them all exactly; refused, naming the row, where there is none."""
    if series.dtype != pl.Object:
        return series
    values = series.to_list()

    def misfit(count: int) -> Exception | None:
        try:
            pa.array(values[:count])
        except _UNFIT_ARROW as why:
            return why
        return None

    if misfit(len(values)) is not None:
        row = bisect.bisect_left(range(1, len(values) + 1), True, key=lambda count: misfit(count) is not None)
        why = misfit(row + 1)
        assert why is not None
        raise refused_value(values[row], row, where, series.name, "of one type with the rows before it", why)
    return pl.Series(series.name, pl.from_arrow(pa.array(values)))
