"""What keeps a user's SQL from writing, and what does not: the ground under the queries over a lab."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Connection = duckdb.DuckDBPyConnection

CONFIG: dict[str, Any] = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"position": [1, 2, 3]}), tmp_path / "segment.parquet")
    pq.write_table(pa.table({"position": [4]}), tmp_path / "other.parquet")
    return tmp_path


@pytest.fixture
def con(folder: Path) -> Iterator[Connection]:
    """The owner of the database: one file may be read, and everything else is closed and locked."""
    connection = duckdb.connect(":memory:", config=CONFIG)
    connection.execute("CREATE SCHEMA types; CREATE SCHEMA state")
    connection.execute(f"CREATE VIEW types.landed AS SELECT * FROM read_parquet(['{folder}/segment.parquet'])")
    put(connection, "state.flight", pa.table({"id": [1, 2, 3]}))
    connection.execute(f"SET GLOBAL allowed_paths=['{folder}/segment.parquet', '{folder}/later.parquet']")
    connection.execute("SET GLOBAL enable_external_access=false")
    connection.execute("SET GLOBAL lock_configuration=true")
    yield connection
    connection.close()


@pytest.fixture
def cursor(con: Connection) -> Connection:
    reading = con.cursor()
    reading.execute("BEGIN TRANSACTION READ ONLY")
    return reading


def put(con: Connection, name: str, table: pa.Table) -> None:
    con.register("__incoming", table)
    con.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM __incoming")
    con.unregister("__incoming")


def count(con: Connection, table: str) -> int:
    return int(con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


# -- what a read-only transaction refuses


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO state.flight VALUES (9)",
        "WITH x AS (INSERT INTO state.flight VALUES (9) RETURNING *) SELECT * FROM x",
        "UPDATE state.flight SET id = 0",
        "TRUNCATE state.flight",
        "MERGE INTO state.flight USING (VALUES (1)) v(a) ON id = a WHEN MATCHED THEN DELETE",
        "CREATE TABLE state.seat(i INT)",
        "CREATE OR REPLACE VIEW types.landed AS SELECT 1",
        "CREATE MACRO f(a) AS a",
        "ALTER TABLE state.flight ADD COLUMN z INT",
        "DROP VIEW types.landed",
        "EXPLAIN ANALYZE INSERT INTO state.flight VALUES (9)",
    ],
)
def test_a_read_only_transaction_refuses_what_changes_the_database(con: Connection, cursor: Connection, statement: str) -> None:
    with pytest.raises(duckdb.TransactionException, match="read-only"):
        cursor.execute(statement).fetchall()
    cursor.execute("ROLLBACK")
    assert (count(con, "state.flight"), count(con, "types.landed")) == (3, 3)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE t(i INT)",
        "CREATE TEMP MACRO f(a) AS a",
        "CREATE SECRET (TYPE http)",
        "ATTACH ':memory:' AS other",
        "SET VARIABLE v = 1",
        "USE state",
        "CHECKPOINT",
        "COMMIT",
    ],
)
def test_a_read_only_transaction_lets_these_through_so_they_are_refused_by_what_they_are(
    cursor: Connection, statement: str
) -> None:
    cursor.execute(statement).fetchall()
    assert cursor.extract_statements(statement)[0].type.name != "SELECT"


def test_a_second_statement_can_end_the_transaction_and_then_write(con: Connection, cursor: Connection) -> None:
    cursor.execute("COMMIT; DROP TABLE state.flight")
    with pytest.raises(duckdb.CatalogException):
        count(con, "state.flight")
    assert len(cursor.extract_statements("COMMIT; DROP TABLE state.flight")) == 2


# -- COPY, which no transaction and no setting stops


@pytest.mark.parametrize(
    ("form", "kind"),
    [("{}", "COPY"), ("WITH x AS ({}) SELECT 1", "SELECT"), ("EXPLAIN ANALYZE {}", "EXPLAIN")],
)
def test_a_file_that_may_be_read_may_also_be_overwritten_in_a_read_only_transaction(
    cursor: Connection, folder: Path, form: str, kind: str
) -> None:
    statement = form.format(f"COPY (SELECT 1) TO '{folder}/segment.parquet' (FORMAT csv, USE_TMP_FILE false)")
    assert [found.type.name for found in cursor.extract_statements(statement)] == [kind]
    cursor.execute(statement).fetchall()
    assert (folder / "segment.parquet").read_bytes() == b"1\n1\n"


def test_the_syntax_tree_tells_a_copy_or_an_insert_inside_a_select(cursor: Connection) -> None:
    for inside, node in (
        ("COPY (SELECT 1) TO 'x'", "COPY_QUERY_NODE"),
        ("INSERT INTO t VALUES (1) RETURNING *", "INSERT_QUERY_NODE"),
        ("UPDATE t SET i = 1 RETURNING *", "UPDATE_QUERY_NODE"),
        ("DELETE FROM t RETURNING *", "DELETE_QUERY_NODE"),
    ):
        tree = json.loads(cursor.execute("SELECT json_serialize_sql(?)", [f"WITH x AS ({inside}) SELECT 1"]).fetchall()[0][0])
        (entry,) = tree["statements"][0]["node"]["cte_map"]["map"]
        assert entry["value"]["query_node"]["type"] == node


@pytest.mark.parametrize("query", ["SELECT (WITH x AS ({}) SELECT 1)", "SELECT * FROM query($$WITH x AS ({}) SELECT 1$$)"])
def test_below_the_top_of_a_query_nothing_can_write(cursor: Connection, folder: Path, query: str) -> None:
    before = (folder / "segment.parquet").read_bytes()
    with pytest.raises(duckdb.BinderException, match="top level"):
        cursor.execute(query.format(f"COPY (SELECT 1) TO '{folder}/segment.parquet' (FORMAT csv, USE_TMP_FILE false)"))
    assert (folder / "segment.parquet").read_bytes() == before


@pytest.mark.parametrize(
    "statement", ["COPY (SELECT 1) TO 'x'", "EXPLAIN SELECT 1", "SET VARIABLE v = 1", "PIVOT t ON a USING sum(b)"]
)
def test_only_a_select_has_a_syntax_tree(cursor: Connection, statement: str) -> None:
    tree = json.loads(cursor.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()[0][0])
    assert (tree["error"], tree["error_type"]) == (True, "not implemented")


def test_a_pivot_is_a_select_once_its_values_are_named(cursor: Connection) -> None:
    (loose,) = cursor.extract_statements("PIVOT state.flight ON id USING count(*)")
    (named,) = cursor.extract_statements("PIVOT state.flight ON id IN (1, 2) USING count(*)")
    assert (loose.type.name, named.type.name) == ("MULTI", "SELECT")


# -- other files, the network, settings


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_parquet('{folder}/other.parquet')",
        "SELECT * FROM '{folder}/other.parquet'",
        "SELECT * FROM read_text('{folder}/*')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "COPY state.flight TO '{folder}/out.csv'",
        "COPY state.flight FROM '{folder}/other.parquet'",
        "ATTACH '{folder}/other.db'",
        "EXPORT DATABASE '{folder}/export'",
        "INSTALL httpfs",
        "LOAD httpfs",
    ],
)
def test_no_other_file_and_no_network_is_reached(cursor: Connection, folder: Path, statement: str) -> None:
    with pytest.raises(duckdb.PermissionException):
        cursor.execute(statement.format(folder=folder)).fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "SET lock_configuration=false",
        "SET allowed_configs=['threads']",
        "SET GLOBAL allowed_paths=['x']",
        "SET TimeZone='Asia/Tokyo'",
        "RESET TimeZone",
        "PRAGMA threads=1",
        "SET enable_progress_bar=true",
        "SELECT * FROM enable_logging()",
    ],
)
def test_the_lock_holds_for_the_owner_and_for_cursors(con: Connection, cursor: Connection, statement: str) -> None:
    for connection in (con, cursor):
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            connection.execute(statement)


def test_the_files_that_may_be_read_are_settled_when_outside_access_ends(folder: Path) -> None:
    connection = duckdb.connect(":memory:")
    connection.execute("SET allowed_configs=['allowed_paths', 'enable_external_access']")
    connection.execute(f"SET allowed_paths=['{folder}/segment.parquet']")
    connection.execute("SET enable_external_access=false")
    with pytest.raises(duckdb.InvalidInputException, match="Cannot change allowed_paths"):
        connection.execute(f"SET allowed_paths=['{folder}/other.parquet']")
    with pytest.raises(duckdb.InvalidInputException, match="while database is running"):
        connection.execute("SET enable_external_access=true")
    connection.close()


def test_a_view_needs_its_file_to_be_there_and_an_allowed_file_may_come_later(con: Connection, folder: Path) -> None:
    view = f"CREATE VIEW types.later AS SELECT * FROM read_parquet(['{folder}/later.parquet'])"
    with pytest.raises(duckdb.Error):
        con.execute(view)
    (folder / "other.parquet").rename(folder / "later.parquet")
    con.execute(view)
    assert count(con.cursor(), "types.later") == 1


# -- cursors


def test_python_variables_are_not_tables(con: Connection) -> None:
    frame = pl.DataFrame({"a": [1]})
    assert len(frame) == 1
    for connection in (con, con.cursor()):
        with pytest.raises(duckdb.CatalogException):
            connection.execute("SELECT * FROM frame")


@pytest.mark.parametrize("make", [pl.DataFrame, lambda data: pl.DataFrame(data).lazy(), pa.table])
def test_a_registered_frame_belongs_to_one_cursor(con: Connection, cursor: Connection, make: Callable[[Any], Any]) -> None:
    cursor.register("frame", make({"a": [1]}))
    assert [count(cursor, "frame"), count(cursor, "frame")] == [1, 1]
    for other in (con, con.cursor()):
        with pytest.raises(duckdb.CatalogException):
            count(other, "frame")


@pytest.mark.parametrize("inside", [False, True])
def test_a_rollback_takes_away_the_frames_registered_since_the_transaction_began(con: Connection, inside: bool) -> None:
    cursor = con.cursor()
    if inside:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
    cursor.register("frame", pa.table({"a": [1]}))
    if not inside:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
    assert count(cursor, "frame") == 1
    cursor.execute("ROLLBACK")
    if inside:
        with pytest.raises(duckdb.CatalogException):
            count(cursor, "frame")
    else:
        assert count(cursor, "frame") == 1


def test_tables_are_replaced_under_a_reader_who_keeps_what_it_began_with(con: Connection, cursor: Connection) -> None:
    assert count(cursor, "state.flight") == 3
    put(con, "state.flight", pa.table({"id": [1]}))
    put(con, "state.seat", pa.table({"id": [1]}))
    later = con.cursor()
    later.execute("BEGIN TRANSACTION READ ONLY")
    assert (count(cursor, "state.flight"), count(later, "state.flight"), count(later, "state.seat")) == (3, 1, 1)
    con.execute("DROP TABLE state.flight")
    assert count(cursor, "state.flight") == 3


def test_what_a_cursor_sets_up_for_itself_stays_with_it_but_a_database_it_attaches_does_not(con: Connection) -> None:
    first, second = con.cursor(), con.cursor()
    first.execute("USE state; SET VARIABLE v = 1; CREATE TEMP TABLE t(i INT); ATTACH ':memory:' AS other")
    assert second.execute("SELECT current_schema(), getvariable('v')").fetchall() == [("main", None)]
    assert count(second, "duckdb_tables() WHERE table_name = 't'") == 0
    assert count(second, "duckdb_databases() WHERE database_name = 'other'") == 1


def test_after_an_error_the_transaction_is_over_until_it_is_rolled_back(cursor: Connection) -> None:
    with pytest.raises(duckdb.CatalogException):
        cursor.execute("SELECT * FROM nowhere")
    with pytest.raises(duckdb.TransactionException, match="aborted"):
        cursor.execute("SELECT count(*) FROM state.flight")
    cursor.execute("ROLLBACK")
    assert count(cursor, "state.flight") == 3


def test_closing_the_owner_closes_its_cursors(con: Connection, cursor: Connection) -> None:
    con.close()
    with pytest.raises(duckdb.ConnectionException):
        cursor.execute("SELECT 1")


@pytest.mark.parametrize(
    ("query", "params"),
    [("SELECT $a, $b", {"a": 1}), ("SELECT $a", {"a": 1, "b": 2}), ("SELECT ?", [1, 2]), ("SELECT ?, ?", [1])],
)
def test_a_parameter_too_few_or_too_many_is_an_error(cursor: Connection, query: str, params: Any) -> None:
    with pytest.raises(duckdb.InvalidInputException):
        cursor.sql(query, params=params).pl()
