"""The benchmark runs with one command, and what it compares gives the same answers. No figure is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"

#: What is compared, and with what.
ROWS = [
    ("ingest from Polars in memory", "sort, PyArrow write, fsync"),
    ("size on disk, with the catalog", "that one Parquet file"),
    ("count by type, lab.sql", "DuckDB by hand"),
    ("fold of every order, engine='lifted'", "DuckDB by hand"),
    ("fold of every order, engine='rows'", "DuckDB by hand"),
    ("at(T) in the middle, engine='rows'", "our fold of the whole log"),
    ("fold of every order, engine='rows'", "eventsourcing"),
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


@pytest.mark.benchmark
def test_the_table_of_ratios() -> None:
    """Shown with `pytest -m benchmark -s`."""
    assert subprocess.run([sys.executable, RUN], timeout=600, check=False).returncode == 0
