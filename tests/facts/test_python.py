"""What Python, and the libraries loaded into it, do to hashes, sums, encodings and Ctrl-C."""

from __future__ import annotations

import datetime as dt
import functools
import json
import operator
import os
import subprocess
import sys
from decimal import Decimal

import cbor2
import polars as pl
import pytest


def python(*flags: str, code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


# -- hashes and fingerprints


def test_isolated_mode_ignores_the_hash_seed_and_safe_path_without_user_site_does_not() -> None:
    seeded = {python("-s", "-P", code="print(hash('a'))", PYTHONHASHSEED="7") for _ in range(2)}
    isolated = {python("-I", code="print(hash('a'))", PYTHONHASHSEED="7") for _ in range(2)}
    assert len(seeded) == 1
    assert isolated != seeded


def test_the_order_of_a_set_of_texts_changes_with_the_hash_seed() -> None:
    code = "print(*{str(n) for n in range(50)})"
    first, second = (python("-s", "-P", code=code, PYTHONHASHSEED=seed) for seed in "12")
    assert first != second
    assert sorted(first.split()) == sorted(second.split())


def test_an_exclusive_or_of_digests_loses_duplicates_and_a_sum_does_not() -> None:
    digests = [11, 29, 29]
    assert functools.reduce(operator.xor, digests) == functools.reduce(operator.xor, [11])
    assert sum(digests) != sum([11])


def test_a_sum_of_floats_depends_on_their_order() -> None:
    assert (0.1 + 0.2) + 0.3 != 0.1 + (0.2 + 0.3)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0.0, -0.0), (Decimal(1), 1), (b"a", "a"), (None, 0), ("1", 1)],
)
def test_canonical_cbor_tells_apart_what_python_or_json_takes_for_the_same(one: object, other: object) -> None:
    assert cbor2.dumps(one, canonical=True) != cbor2.dumps(other, canonical=True)


def test_canonical_cbor_does_not_depend_on_the_order_of_a_mapping_or_a_set() -> None:
    assert cbor2.dumps({"b": 1, "a": 2}, canonical=True) == cbor2.dumps({"a": 2, "b": 1}, canonical=True)
    assert cbor2.dumps(frozenset("ab"), canonical=True) == cbor2.dumps(frozenset("ba"), canonical=True)


def test_canonical_cbor_has_one_nan_and_keeps_the_zeros_of_a_decimal() -> None:
    assert cbor2.dumps(float("nan"), canonical=True) == cbor2.dumps(-float("nan"), canonical=True)
    assert cbor2.dumps(Decimal("1.0"), canonical=True) != cbor2.dumps(Decimal(1), canonical=True)


def test_json_writes_no_exact_decimal_and_writes_a_nan_that_is_not_json() -> None:
    assert json.dumps(float("nan")) == "NaN"
    with pytest.raises(TypeError):
        json.dumps(Decimal("0.1"))


# -- time


def test_a_repeated_hour_compares_equal_where_the_instants_differ() -> None:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("Europe/Oslo")
    first = dt.datetime(2024, 10, 27, 2, 30, tzinfo=zone)
    second = first.replace(fold=1)
    assert first == second
    assert first.astimezone(dt.UTC) != second.astimezone(dt.UTC)


# -- Polars


def test_polars_gives_rows_in_an_order_only_where_it_is_asked_for() -> None:
    frame = pl.LazyFrame({"k": [n % 997 for n in range(5000)], "v": range(5000)})
    summed = pl.col("v").sum()
    kept = frame.group_by("k", maintain_order=True).agg(summed).collect()
    assert kept["k"].to_list() == list(range(997))
    assert frame.group_by("k").agg(summed).sort("k").collect().equals(kept)


# -- Ctrl-C

WAIT = """
import fcntl, os, signal, tempfile, threading, time
{before}
file = tempfile.NamedTemporaryFile()
holder, waiter = (os.open(file.name, os.O_RDWR) for _ in range(2))
fcntl.flock(holder, fcntl.LOCK_EX)
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
threading.Timer(1.5, fcntl.flock, (holder, fcntl.LOCK_UN)).start()
start = time.monotonic()
try:
    fcntl.flock(waiter, fcntl.LOCK_EX)
    time.sleep(1)
except KeyboardInterrupt:
    print("at once" if time.monotonic() - start < 1 else "when the lock was free")
"""


@pytest.mark.parametrize(
    ("before", "when"),
    [
        ("", "at once"),
        ("import polars", "when the lock was free"),
        ("import polars; signal.siginterrupt(signal.SIGINT, True)", "at once"),
    ],
)
def test_once_polars_is_imported_ctrl_c_does_not_end_a_wait_for_a_lock(before: str, when: str) -> None:
    assert python(code=WAIT.format(before=before)) == when
