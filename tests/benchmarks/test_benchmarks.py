"""The benchmark runs with one command, and what it compares gives the same answers. No figure is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"
STORE = Path(__file__).parent / "store.py"
READ_MODELS = Path(__file__).parent / "read_models.py"
HANDLING = Path(__file__).parent / "handling.py"
TEMPORAL = Path(__file__).parent / "temporal.py"
DISCOVERY = Path(__file__).parent / "discovery.py"
CHECKING = Path(__file__).parent / "checking.py"
PROGRAMS = [RUN, STORE, READ_MODELS, HANDLING, TEMPORAL, DISCOVERY, CHECKING]

#: What is compared, and with what.
ROWS = [
    ("ingest from Polars in memory", "sort, PyArrow write, fsync"),
    ("size on disk, with the catalog", "that one Parquet file"),
    ("count by type, lab.sql", "DuckDB by hand"),
    ("fold of every order, engine='lifted'", "DuckDB by hand"),
    ("fold of every order, engine='rows'", "DuckDB by hand"),
    ("at(T) in the middle, engine='rows'", "our fold of the whole log"),
    ("fold of every order, engine='rows'", "eventsourcing"),
    ("fold of every order, engine='lifted'", "eventsourcing, among 3,000"),
    ("load one order of ten events, its snapshot kept", "eventsourcing, repository.get"),
    ("the same, among 3,000", "eventsourcing, among 3,000"),
    ("load one order of ten events, hot", "eventsourcing, repository.get"),
    ("append one event", "INSERT into raw SQLite, WAL, FULL"),
    ("append one event", "eventsourcing, save"),
    ("catch_up of 30 new events", "our rebuild"),
    ("SQL over state.order", "a Parquet file of the rows"),
    ("the same, first time after an append", "a Parquet file of the rows"),
    ("seal the hot tail", "sort, PyArrow write, fsync"),
]


def test_every_comparison_is_made_and_both_sides_answer_alike(tmp_path: Path) -> None:
    command = [sys.executable, RUN, "--events", "3000", "--json", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(done.stdout.splitlines()) == 1
    told = json.loads(done.stdout)
    assert [(row["what"], row["against"]) for row in told["rows"]] == ROWS
    assert [row for row in told["rows"] if not row["equal"]] == []
    assert all(math.isfinite(row["ratio"]) and row["ratio"] > 0 for row in told["rows"])
    assert list(tmp_path.iterdir()) == [], "what it wrote is removed"


#: Of each part of the store's benchmark, the first thing that is compared.
STORE_ROWS = {
    "append 1 event", "2 processes append at once", "ingest, by time of all cores", "bytes an event, plain",
    "load ten events, hot", "count by type, plain", "sum by stream, one bucket", "seal", "compact", "p99 of a writer beside seal",
}  # fmt: skip


def test_every_part_of_the_store_is_measured_and_both_sides_answer_alike(tmp_path: Path) -> None:
    command = [sys.executable, STORE, "--events", "1000", "--large", "2000", "--json", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    rows = told["rows"]
    assert {row["what"] for row in rows} >= STORE_ROWS
    assert [row for row in rows if not row["equal"]] == []
    assert all(math.isfinite(row["ratio"]) and row["ratio"] > 0 for row in rows)
    # A floor is shown, met or not.
    without = {"2 processes append at once", "sum by stream, one bucket"}
    assert {row["what"] for row in rows if row["floor"]} >= STORE_ROWS - without
    assert list(tmp_path.iterdir()) == [], "what it wrote is removed"


def test_read_models_are_measured_and_both_sides_answer_alike(tmp_path: Path) -> None:
    command = [sys.executable, READ_MODELS, "--events", "5000", "--new", "50", "--json", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 6
    assert [row for row in rows if not row["equal"]] == []
    assert all(math.isfinite(row["ratio"]) and row["ratio"] > 0 for row in rows)
    assert list(tmp_path.iterdir()) == [], "what it wrote is removed"


def test_commands_are_measured_and_both_sides_answer_alike(tmp_path: Path) -> None:
    command = [sys.executable, HANDLING, "--turns", "3", "--long", "1500", "--json", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 28
    assert [row for row in rows if not row["equal"]] == []
    assert all(math.isfinite(row["ratio"]) and row["ratio"] > 0 for row in rows)
    assert list(tmp_path.iterdir()) == [], "what it wrote is removed"


@pytest.mark.parametrize(
    ("program", "more"),
    [(TEMPORAL, ["--turns", "1"]), (DISCOVERY, ["--turns", "1"]), (CHECKING, ["--events", "1200", "--turns", "1"])],
    ids=["temporal", "discovery", "checking"],
)  # fmt: skip
def test_what_is_compared_gives_the_same_answers(program: Path, more: list[str]) -> None:
    command = [sys.executable, program, "--events", "4000", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "ANSWERS DIFFER" not in done.stdout
    assert "ratio" in done.stdout or "one row fold" in done.stdout


@pytest.mark.benchmark
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_the_table_of_ratios(program: Path) -> None:
    """Shown with `pytest -m benchmark -s`."""
    assert subprocess.run([sys.executable, program], timeout=600, check=False).returncode == 0
