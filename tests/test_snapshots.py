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
from eventlab.errors import InvalidValue
from eventlab.store.base import Snapshot, checksum, pack, unpack


@el.event
class SheepCounted:
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

    def evolve(self, event: SheepCounted, meta: el.Meta) -> Self:
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
            lab.append(f"tally-{i % 3}", [SheepCounted(i), SheepCounted(i + 1)])
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
    lab.append("tally-1", [SheepCounted(5)])
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

        def evolve(self, event: SheepCounted) -> Self:
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


def test_a_policy_says_when_states_are_kept(tmp_path: Path) -> None:
    for number, (policy, kept) in enumerate(
        [
            (el.SnapshotPolicy(), []),
            (el.SnapshotPolicy(every=10), [("tally-1", 20)]),
            (el.SnapshotPolicy(every=21), []),
            (el.SnapshotPolicy(every=None, seconds=0.0), [("tally-1", 20)]),
            (el.SnapshotPolicy(every=None, seconds=100.0), []),
            (None, []),
        ]
    ):
        with el.open(tmp_path / str(number), maintain=False, snapshots=policy) as lab:
            lab.append("tally-1", [SheepCounted(i) for i in range(20)])
            assert lab.load(Tally, "1").total == 190
            assert snapshots(lab) == kept
            lab.seal()
            lab.load(Tally, "1")
            assert snapshots(lab) == (kept if policy is None or kept else [("tally-1", 20)])


def test_after_so_many_events_more_the_next_one_is_kept(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False, snapshots=el.SnapshotPolicy(every=5)) as lab:
        seen = []
        for i in range(17):
            lab.append("tally-1", [SheepCounted(i)])
            lab.load(Tally, "1")
            seen.append(snapshots(lab)[0][1] if snapshots(lab) else 0)
        assert sorted(set(seen)) == [0, 5, 10, 15]
        assert lab.load(Tally, "1").total == sum(range(17))


def test_a_lab_without_snapshots_uses_none_either(lab: el.Lab) -> None:
    lab.seal()
    state = lab.load(Tally, "1")
    assert lab.path
    with contextlib.closing(sqlite3.connect(lab.path / "catalog.sqlite", isolation_level=None)) as catalog:
        wrong = pack([1_000_000, 0, [], [], None])
        row = catalog.execute("SELECT tenant, stream, model, fingerprint, version, position FROM snapshot").fetchone()
        catalog.execute("UPDATE snapshot SET state = ?, checksum = ?", (wrong, checksum(*row, wrong)))
    with el.open(lab.path, maintain=False, snapshots=None) as other:
        assert other.load(Tally, "1") == state
        assert other.at(position=lab.head).load(Tally, "1") == state


def test_every_snapshot_is_proved_against_its_events(lab: el.Lab) -> None:
    lab.seal()
    for i in range(3):
        lab.load(Tally, str(i))
    lab.append("tally-1", [SheepCounted(5)])
    found = lab.prove_snapshots()
    assert found["verdict"].to_list() == ["equal"] * 3
    assert lab.path
    with contextlib.closing(sqlite3.connect(lab.path / "catalog.sqlite", isolation_level=None)) as catalog:
        rows = catalog.execute("SELECT tenant, stream, model, fingerprint, version, position, state FROM snapshot").fetchall()
        *key, state = rows[0]
        total, *rest = unpack(state)
        wrong = pack([total + 1, *rest])
        catalog.execute("UPDATE snapshot SET state = ?, checksum = ? WHERE stream = ?", (wrong, checksum(*key, wrong), key[1]))
        other = [*rows[1][:3], "another code", *rows[1][4:]]
        catalog.execute(
            "UPDATE snapshot SET fingerprint = ?, checksum = ? WHERE stream = ?", ("another code", checksum(*other), other[1])
        )
    found = lab.prove_snapshots()
    assert found.select("stream", "verdict", "field").rows() == [
        ("tally-0", "differs", "total"), ("tally-1", "other code", None), ("tally-2", "equal", None),
    ]  # fmt: skip
    assert found["kept"][0] == str(int(found["folded"][0]) + 1)
    assert lab.drop_snapshots() == 3
    assert lab.prove_snapshots().is_empty()
    assert lab.load(Tally, "1").total > 0


def test_a_policy_that_says_nothing_sensible_is_refused() -> None:
    for wrong in ({"every": 0}, {"every": True}, {"seconds": -1.0}):
        with pytest.raises(InvalidValue):
            el.SnapshotPolicy(**wrong)  # type: ignore[arg-type]


def test_a_snapshot_does_not_wait_for_the_disk_and_every_append_does(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        catalog: Any = lab.store._catalog  # type: ignore[attr-defined]
        said: list[str] = []
        catalog.write_connection.set_trace_callback(said.append)
        lab.append("tally-1", [SheepCounted(1)])
        lab.store.save_snapshot("default", "tally-1", "tally", Snapshot("f" * 32, 1, 1, ("x",)))
        assert said[-1] == "PRAGMA synchronous=FULL"
        assert said.index("PRAGMA synchronous=NORMAL") > said.index("COMMIT")
        with pytest.raises(RuntimeError, match="half way"), catalog.write_unhurried() as connection:
            connection.execute("DELETE FROM snapshot")
            raise RuntimeError("half way")
        assert catalog.write_connection.execute("PRAGMA synchronous").fetchone() == (2,)
        found = lab.store.snapshot("default", "tally-1", "tally")
        assert found is not None
        assert found.state == ("x",)
