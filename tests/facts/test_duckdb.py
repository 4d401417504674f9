"""What DuckDB does with values, time and results: an upgrade that changes one of these is noticed here."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

Connection = duckdb.DuckDBPyConnection


@pytest.fixture
def con() -> Iterator[Connection]:
    connection = duckdb.connect(":memory:")
    connection.execute("SET GLOBAL TimeZone='UTC'")
    yield connection
    connection.close()


def one(con: Connection, expression: str) -> Any:
    row = con.execute(f"SELECT {expression}").fetchall()[0]
    return row[0] if len(row) == 1 else row


# -- numbers


@pytest.mark.parametrize(
    "expression",
    [
        "CASE WHEN false THEN 1::DECIMAL(38,0) ELSE 1.5::DECIMAL(38,4) END",
        "coalesce(NULL::DECIMAL(38,0), 1.5::DECIMAL(38,4))",
        "greatest(1::DECIMAL(38,0), 1.5::DECIMAL(38,4))",
    ],
)
def test_two_wide_decimals_of_different_scale_meet_at_scale_0_and_are_rounded_in_silence(
    con: Connection, expression: str
) -> None:
    assert one(con, f"({expression}, typeof({expression}))") == (Decimal(2), "DECIMAL(38,0)")


def test_a_cast_in_every_arm_keeps_the_digits(con: Connection) -> None:
    assert one(con, "CASE WHEN false THEN 1::DECIMAL(38,4) ELSE 1.5::DECIMAL(38,4) END") == Decimal("1.5")


def test_integer_division_and_remainder_round_towards_zero_unlike_python(con: Connection) -> None:
    assert one(con, "(-7 // 2, -7 % 2)") == (-3, -1)
    assert (-7 // 2, -7 % 2) == (-4, 1)


def test_a_slash_between_integers_gives_a_float_and_a_literal_with_a_point_is_a_decimal(con: Connection) -> None:
    assert one(con, "(typeof(1 / 2), typeof(0.1), 0.1 + 0.2)") == ("DOUBLE", "DECIMAL(2,1)", Decimal("0.3"))


def test_a_cast_to_an_integer_rounds_halves_away_from_zero_unlike_python(con: Connection) -> None:
    assert one(con, "(2.5::INT, -2.5::INT)") == (3, -3)
    assert round(2.5) == 2


def test_a_sum_of_integers_is_a_hugeint_which_becomes_a_decimal_and_casts_to_int128_without_loss(con: Connection) -> None:
    relation = con.sql("SELECT sum(x) AS s FROM (VALUES (9223372036854775807), (9223372036854775807)) t(x)")
    assert [str(kind) for kind in relation.types] == ["HUGEINT"]
    frame = relation.pl()
    assert frame.schema == {"s": pl.Decimal(38, 0)}
    largest = con.sql(f"SELECT {2**127 - 1}::HUGEINT AS h").pl()
    assert frame["s"].cast(pl.Int128).to_list() == [2**64 - 2]
    # More than 38 digits: the decimal cannot say it, the cast still can.
    assert largest["h"].cast(pl.Int128).to_list() == [2**127 - 1]
    assert largest["h"].to_list() != [Decimal(2**127 - 1)]


def test_a_sum_of_decimals_keeps_their_scale(con: Connection) -> None:
    found = one(con, "(sum(x), typeof(sum(x))) FROM (VALUES (0.10::DECIMAL(18,2)), (0.20)) t(x)")
    assert found == (Decimal("0.30"), "DECIMAL(38,2)")


def test_a_sum_of_floats_depends_on_their_order_and_an_order_by_inside_it_settles_that(con: Connection) -> None:
    value = "((hash(position) % 1000003) / 7.0 * 10.0 ** (position % 17))::DOUBLE"
    con.execute(f"CREATE TABLE t AS SELECT position, {value} AS v FROM range(200000) r(position)")
    assert one(con, "sum(v ORDER BY position) <> sum(v ORDER BY position DESC) FROM t")
    found = set()
    for threads in (1, 2, 4):
        con.execute(f"SET threads={threads}")
        found.add(one(con, "sum(v ORDER BY position) FROM t"))
    assert len(found) == 1


def test_sums_of_integers_and_decimals_are_the_same_on_any_number_of_threads(con: Connection) -> None:
    con.execute(
        "CREATE TABLE t AS SELECT i, (i / 100)::DECIMAL(18,2) AS d FROM (SELECT hash(r) % 1000003 AS i FROM range(300000) t(r))"
    )
    found = set()
    for threads in (1, 2, 4):
        con.execute(f"SET threads={threads}")
        found.add(one(con, "(sum(i), sum(d)) FROM t"))
    assert len(found) == 1


# -- NULL and evaluation


def test_arg_max_skips_nulls_and_arg_max_null_does_not(con: Connection) -> None:
    assert one(con, "(arg_max(x, p), arg_max_null(x, p)) FROM (VALUES (1, 1), (NULL, 2)) t(x, p)") == (1, None)


def test_a_filter_does_not_keep_its_argument_from_being_evaluated_and_case_does(con: Connection) -> None:
    rows = "FROM (VALUES ('a'), ('1')) t(x)"
    with pytest.raises(duckdb.ConversionException):
        one(con, f"sum(x::INT) FILTER (x = '1') {rows}")
    assert one(con, f"sum(CASE WHEN x = '1' THEN x::INT END) {rows}") == 1


def test_concat_ws_leaves_nulls_out_so_different_rows_give_one_text(con: Connection) -> None:
    assert one(con, "concat_ws('|', 'a', NULL, 'b') = concat_ws('|', 'a', 'b')")


def test_an_exclusive_or_of_hashes_does_not_see_a_row_that_is_there_twice(con: Connection) -> None:
    assert one(con, "bit_xor(hash(x)) FROM (VALUES (1), (1)) t(x)") == 0


# -- time


def test_days_follow_the_time_zone_of_the_session(con: Connection) -> None:
    days = {}
    for zone in ("UTC", "Asia/Tokyo"):
        con.execute(f"SET GLOBAL TimeZone='{zone}'")
        days[zone] = one(con, "(TIMESTAMPTZ '2024-01-01 23:30:00+00')::DATE")
    assert days == {"UTC": dt.date(2024, 1, 1), "Asia/Tokyo": dt.date(2024, 1, 2)}


def test_only_a_global_time_zone_reaches_the_cursors_of_a_connection(con: Connection) -> None:
    con.execute("SET TimeZone='Asia/Tokyo'")
    assert one(con.cursor(), "current_setting('TimeZone')") == "UTC"
    con.execute("SET GLOBAL TimeZone='Asia/Tokyo'")
    assert one(con.cursor(), "current_setting('TimeZone')") == "Asia/Tokyo"


@pytest.mark.parametrize("setting", ["TimeZone", "parquet_metadata_cache"])
def test_settings_of_built_in_extensions_are_not_known_yet_while_connecting_where_nothing_is_loaded_by_itself(
    setting: str,
) -> None:
    closed: dict[str, Any] = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    with pytest.raises(duckdb.InvalidInputException, match="not recognized"):
        duckdb.connect(":memory:", config=closed | {setting: "true"})
    with duckdb.connect(":memory:", config=closed) as connection:
        connection.execute(f"SET GLOBAL {setting}='{'UTC' if setting == 'TimeZone' else 'true'}'")


def test_a_time_reaches_python_without_pytz() -> None:
    code = (
        "import sys; sys.modules['pytz'] = None\n"
        "import duckdb\n"
        "con = duckdb.connect(':memory:'); con.execute(\"SET GLOBAL TimeZone='UTC'\")\n"
        "print(con.execute(\"SELECT TIMESTAMPTZ '2024-01-01 00:00:00+00'\").fetchall()[0][0].isoformat())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2024-01-01T00:00:00+00:00", done.stderr


# -- results


def test_a_relation_becomes_a_frame_with_its_types_and_a_connection_does_not(con: Connection) -> None:
    relation = con.sql(
        "SELECT $n AS i, 1.5::DECIMAL(18,2) AS d, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS at, [1::BIGINT] AS l, "
        "'00000000-0000-0000-0000-000000000001'::UUID AS u, '\\x01'::BLOB AS b, TIME '01:02:03' AS t, {'k': 'v'} AS s, "
        "MAP {'k': 1::BIGINT} AS m, DATE '2024-01-01' AS day",
        params={"n": 2**40},
    )
    assert relation.pl().schema == {
        "i": pl.Int64(),
        "d": pl.Decimal(18, 2),
        "at": pl.Datetime("us", "UTC"),
        "l": pl.List(pl.Int64),
        "u": pl.String(),
        "b": pl.Binary(),
        "t": pl.Time(),
        "s": pl.Struct({"k": pl.String}),
        "m": pl.Map(pl.String, pl.Int64),
        "day": pl.Date(),
    }
    assert not hasattr(con, "pl")


def test_polars_takes_no_interval_so_the_difference_of_two_times_must_be_converted(con: Connection) -> None:
    relation = con.sql("SELECT TIMESTAMPTZ '2024-01-02 00:00:00+00' - TIMESTAMPTZ '2024-01-01 00:00:00+00' AS span")
    assert str(relation.types[0]) == "INTERVAL"
    with pytest.raises(pl.exceptions.ComputeError, match="interval"):
        relation.pl()
    (span,) = relation.to_arrow_table()["span"].to_pylist()
    assert (span.months, span.days, span.nanoseconds) == (0, 1, 0)


def test_two_columns_of_one_name_are_renamed_on_the_way_to_polars(con: Connection) -> None:
    relation = con.sql("SELECT 1 AS a, 2 AS a")
    assert relation.columns == ["a", "a"]
    assert relation.pl().columns == ["a", "a_1"]


def test_an_unread_result_is_in_the_way_of_the_next_relation(con: Connection) -> None:
    con.execute("SELECT * FROM range(3)").fetchone()
    with pytest.raises(duckdb.Error, match="unfinished result"):
        con.sql("SELECT 1").pl()
    con.abort()
    assert con.sql("SELECT 1 AS a").pl()["a"].to_list() == [1]


def test_an_interrupted_cursor_can_be_used_again(con: Connection) -> None:
    cursor = con.cursor()
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    done = threading.Event()

    def interrupt() -> None:
        # One that comes before the query begins is lost.
        while not done.wait(0.05):
            cursor.interrupt()

    stopper = threading.Thread(target=interrupt)
    stopper.start()
    with pytest.raises(duckdb.InterruptException):
        cursor.sql("SELECT sum(hash(a.range * b.range)) FROM range(3000000) a, range(200000) b").to_arrow_table()
    done.set()
    stopper.join()
    cursor.execute("ROLLBACK")
    assert cursor.sql("SELECT 1 AS a").pl()["a"].to_list() == [1]


def test_cursors_have_no_progress_bar_even_where_the_connection_has_one(con: Connection) -> None:
    con.execute("SET enable_progress_bar=true")
    assert one(con, "current_setting('enable_progress_bar')")
    assert not one(con.cursor(), "current_setting('enable_progress_bar')")


# -- syntax


def test_its_own_syntax_tree_names_the_tables_and_the_parameters_of_a_query(con: Connection) -> None:
    query = "WITH a AS (SELECT * FROM state.flight WHERE id = $k) SELECT * FROM a WHERE id IN (SELECT id FROM types.landed)"
    tree = json.loads(one(con, "json_serialize_sql($$" + query + "$$)"))
    (statement,) = tree["statements"]
    found = []
    stack = [statement]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("type") == "BASE_TABLE":
                found.append(".".join(item["qualified_name"]["path"]))
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    assert sorted(found) == ["a", "state.flight", "types.landed"]
    assert [parameter["key"] for parameter in statement["named_param_map"]] == ["k"]


def test_get_table_names_refuses_a_query_with_a_parameter(con: Connection) -> None:
    con.execute("CREATE SCHEMA state; CREATE TABLE state.flight(id INT)")
    assert con.get_table_names("SELECT * FROM state.flight", qualified=True) == {"state.flight"}
    with pytest.raises(duckdb.BinderException, match="parameter"):
        con.get_table_names("SELECT * FROM state.flight WHERE id = $k", qualified=True)


def test_duckdb_says_itself_which_functions_answer_differently_each_time(con: Connection) -> None:
    rows = con.execute("SELECT DISTINCT function_name, stability FROM duckdb_functions()").fetchall()
    volatile = {name for name, stability in rows if stability == "VOLATILE"}
    within_query = {name for name, stability in rows if stability == "CONSISTENT_WITHIN_QUERY"}
    assert {"random", "uuid", "gen_random_uuid", "nextval"} <= volatile
    assert {"now", "today", "current_date"} <= within_query


# -- files


def test_a_copy_with_an_order_writes_the_same_bytes_every_time(con: Connection, tmp_path: Path) -> None:
    con.execute("CREATE TABLE t AS SELECT range AS i, hash(range) AS h FROM range(50000)")
    written = set()
    for threads in (1, 2, 2):
        con.execute(f"SET threads={threads}")
        con.execute(f"COPY (SELECT * FROM t ORDER BY i) TO '{tmp_path}/out.parquet' (FORMAT parquet)").fetchall()
        written.add((tmp_path / "out.parquet").read_bytes())
    assert len(written) == 1
