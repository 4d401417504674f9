"""Snapshots: kept when a load had to open files, never wrong, and never needed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

import eventlab as el


@el.event
class Counted:
    """Something was counted."""

    n: int
    at: el.Tag[str] | None = None


@dataclass(frozen=True)
class Place:
    city: str
    floor: int | None = None


@el.aggregate
class Tally:
    total: int = 0
    price: el.Money = el.money(0)
    seen: frozenset[str] = frozenset()
    log: tuple[int, ...] = ()
    place: Place | None = None

    def evolve(self, event: Counted, meta: el.Meta) -> Self:
        return replace(
            self,
            total=self.total + event.n,
            price=self.price + el.money(event.n),
            seen=self.seen | {meta.stream},
            log=(*self.log, meta.version),
            place=Place("Bern", event.n) if event.n % 2 else None,
        )


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[el.Lab]:
    with el.open(tmp_path / "store", maintain=False) as lab:
        for i in range(30):
            lab.append(f"tally-{i % 3}", [Counted(i), Counted(i + 1)])
        yield lab


def snapshots(lab: el.Lab) -> list[tuple[Any, ...]]:
    assert lab.path
    with contextlib.closing(sqlite3.connect(lab.path / "catalog.sqlite")) as catalog:
        return catalog.execute("SELECT stream, version FROM snapshot ORDER BY stream").fetchall()


def test_a_load_from_files_keeps_a_snapshot_and_one_from_the_hot_tail_does_not(lab: el.Lab) -> None:
    before = lab.loaded(Tally, "1")
    assert snapshots(lab) == []
    lab.seal()
    assert lab.loaded(Tally, "1") == before
    assert snapshots(lab) == [("tally-1", 20)]
    lab.append("tally-1", [Counted(5)])
    after = lab.load(Tally, "1")
    assert (after.total, after.log[-1]) == (before.state.total + 5, 21)
    assert snapshots(lab) == [("tally-1", 20)], "hot events are as near as the snapshot"


def test_states_are_the_same_with_snapshots_without_them_and_at_every_moment(lab: el.Lab) -> None:
    expected = {i: lab.loaded(Tally, str(i)) for i in range(3)}
    history = [lab.at(position=p).load(Tally, "2") for p in range(lab.head + 1)]
    lab.seal()
    lab.compact(all=True)
    for _ in range(2):
        assert {i: lab.loaded(Tally, str(i)) for i in range(3)} == expected
        assert [lab.at(position=p).load(Tally, "2") for p in range(lab.head + 1)] == history
    assert len(snapshots(lab)) == 3
    assert lab.path
    with contextlib.closing(sqlite3.connect(lab.path / "catalog.sqlite", isolation_level=None)) as catalog:
        catalog.execute("DELETE FROM snapshot")
    assert {i: lab.loaded(Tally, str(i)) for i in range(3)} == expected


def test_a_snapshot_of_other_code_is_not_used(lab: el.Lab) -> None:
    lab.seal()
    lab.load(Tally, "1")
    sold = lab.load(Tally, "1").total

    @el.aggregate(name="Tally")
    class Doubled:
        total: int = 0

        def evolve(self, event: Counted) -> Self:
            return replace(self, total=self.total + 2 * event.n)

    assert lab.load(Doubled, "1").total == 2 * sold
    assert lab.load(Tally, "1").total == sold


def test_a_moment_keeps_no_snapshot_and_uses_none_from_its_future(lab: el.Lab) -> None:
    lab.seal()
    early = lab.at(position=20)
    state = early.load(Tally, "1")
    assert snapshots(lab) == []
    lab.load(Tally, "1")
    assert early.load(Tally, "1") == state


def test_a_lab_that_only_reads_keeps_none(lab: el.Lab) -> None:
    lab.seal()
    assert lab.path
    path = lab.path
    lab.close()
    with el.open(path, read_only=True) as reading:
        assert reading.load(Tally, "1").total > 0
        assert snapshots(reading) == []
