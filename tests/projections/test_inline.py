"""Read models that move in the transaction of the append: stored with it, or nothing is."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import EvolveFailed, ReadOnly
from eventlab.projections import inline as inline_module
from eventlab.store import read_models as stored


@el.event
class SavingsPaidIn:
    """Coins went into a box."""

    owner: str
    coins: int


@el.projection(name="hoard")
class Hoard:
    coins: int = 0
    last: tuple[int, ...] = ()

    @staticmethod
    def key(event: SavingsPaidIn) -> str:
        return event.owner

    def evolve(self, event: SavingsPaidIn) -> Self:
        if event.coins < 0:
            raise ValueError("coins do not leave")
        return replace(self, coins=self.coins + event.coins, last=(*self.last[-2:], event.coins))


@el.aggregate(name="box")
class Box:
    coins: int = 0

    def evolve(self, event: SavingsPaidIn) -> Self:
        return replace(self, coins=self.coins + event.coins)


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    lab = el.scratch() if request.param == "memory" else el.open(tmp_path / "log", maintain=False)
    yield lab
    lab.close()


def stands(lab: el.Lab, model: type[Any]) -> tuple[int, dict[str, int]]:
    """What is stored of a model: its checkpoint, and the coins of each key."""
    base = next(base for base in lab.store.read_models.of("default") if base.name == model.__name__.lower())
    table = base.table()
    return base.position, dict(zip(table.column("_id").to_pylist(), table.column("coins").to_pylist(), strict=True))


def test_an_append_moves_rows_and_checkpoint_with_it(lab: el.Lab) -> None:
    lab.append("box-1", [SavingsPaidIn("ann", 3)])
    lab.inline(Hoard, Box)
    assert stands(lab, Hoard) == (1, {"ann": 3})
    lab.append("box-2", [SavingsPaidIn("ann", 4), SavingsPaidIn("bob", 5)])
    assert stands(lab, Hoard) == (3, {"ann": 7, "bob": 5})
    assert stands(lab, Box) == (3, {"1": 3, "2": 9})
    assert lab.table(Hoard)["last"].to_list() == [[3, 4], [5]]
    assert lab.sql("select _id, coins, _position from state.hoard order by 1").rows() == [("ann", 7, 2), ("bob", 5, 3)]
    assert lab.status().filter(pl.col("name") == "hoard")["lag"].item() == 0


def test_what_the_model_cannot_take_is_not_appended(lab: el.Lab) -> None:
    lab.inline(Hoard, Box)
    lab.append("box-1", [SavingsPaidIn("ann", 3)])
    with pytest.raises(EvolveFailed, match=r"inline read model Hoard cannot take what is appended.*coins do not leave") as caught:
        lab.append("box-1", [SavingsPaidIn("bob", 1), SavingsPaidIn("ann", -3)])
    assert "nothing was stored" in caught.value.hint
    assert (lab.head, lab.store.version("default", "box-1")) == (1, 1)
    assert stands(lab, Hoard) == (1, {"ann": 3})
    assert stands(lab, Box) == (1, {"1": 3})
    assert lab.append("box-1", [SavingsPaidIn("ann", 3)]).positions == (2,)
    assert stands(lab, Hoard) == (2, {"ann": 6})


def test_a_key_that_had_stopped_stays_so_and_others_go_on(lab: el.Lab) -> None:
    lab.append("box-1", [SavingsPaidIn("ann", 3), SavingsPaidIn("ann", -1)])
    lab.inline(Hoard)
    lab.append("box-1", [SavingsPaidIn("ann", 3), SavingsPaidIn("bob", 3)])
    assert stands(lab, Hoard) == (4, {"ann": 3, "bob": 3})
    assert lab.parked(Hoard)["waiting"].to_list() == [1]


def test_what_others_appended_meanwhile_is_folded_by_the_next_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab, el.open(tmp_path / "log", maintain=False) as other:
        lab.inline(Hoard)
        other.append("box-9", [SavingsPaidIn("ann", 1)])
        assert stands(lab, Hoard)[0] == 0
        lab.append("box-1", [SavingsPaidIn("ann", 2)])
        assert stands(lab, Hoard) == (2, {"ann": 3})
        # Sealed, or too many: it is caught up outside of the transaction, and then appended.
        other.append("box-9", [SavingsPaidIn("ann", 1)])
        lab.store.seal()  # type: ignore[attr-defined]
        lab.append("box-1", [SavingsPaidIn("bob", 2)])
        assert stands(lab, Hoard) == (4, {"ann": 4, "bob": 2})
        monkeypatch.setattr(stored, "INLINE_GAP", 2)
        other.append("box-9", [SavingsPaidIn("ann", 1)] * 3)
        lab.append("box-1", [SavingsPaidIn("bob", 2)])
        assert stands(lab, Hoard) == (8, {"ann": 7, "bob": 4})


def test_rows_in_the_catalog_become_a_file_when_they_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline_module, "FLUSH_ROWS", 5)
    monkeypatch.setattr("eventlab.writing.FLUSH_ROWS", 5)
    with el.open(tmp_path / "log", maintain=False) as lab:
        lab.inline(Hoard)
        expected: dict[str, int] = {}
        for i in range(23):
            name = f"o{i % 7}"
            expected[name] = expected.get(name, 0) + i
            lab.append(f"box-{i}", [SavingsPaidIn(name, i)])
            assert stands(lab, Hoard) == (i + 1, expected)
        with sqlite3.connect(tmp_path / "log" / "catalog.sqlite") as catalog:
            assert catalog.execute("SELECT count(*) FROM inline_row").fetchone()[0] < 5
        lab.catch_up(Hoard)
        lab.rebuild(Hoard)
        assert stands(lab, Hoard) == (23, expected)
        with sqlite3.connect(tmp_path / "log" / "catalog.sqlite") as catalog:
            assert catalog.execute("SELECT count(*) FROM inline_row").fetchone()[0] == 0


def test_inline_rows_that_were_changed_are_not_read(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        lab.inline(Hoard)
        lab.append("box-1", [SavingsPaidIn("ann", 3)])
        with sqlite3.connect(tmp_path / "log" / "catalog.sqlite") as catalog:
            catalog.execute("UPDATE inline_row SET row = zeroblob(400)")
        assert lab.table(Hoard)["coins"].to_list() == [3]
        lab.append("box-1", [SavingsPaidIn("ann", 3)])
        assert stands(lab, Hoard) == (2, {"ann": 6})


def test_a_lab_that_only_reads_has_nothing_inline(tmp_path: Path) -> None:
    el.open(tmp_path / "log").close()
    with el.open(tmp_path / "log", read_only=True) as lab, pytest.raises(ReadOnly):
        lab.inline(Hoard)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 5)), min_size=1, max_size=4)),
            st.tuples(st.just("elsewhere"), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=3)),
            st.sampled_from([("seal", []), ("catch_up", []), ("rebuild", []), ("compact", [])]),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_inline_rows_are_those_of_the_row_fold_whatever_happens_between(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, el.open(folder, maintain=False) as lab, el.open(folder) as other:
        lab.inline(Hoard, Box)
        for verb, listed in steps:
            made = [SavingsPaidIn(owner, coins) for owner, coins in listed]
            if verb == "append":
                before = lab.head
                if any(event.coins < 0 for event in made):
                    with pytest.raises(EvolveFailed):
                        lab.append("box-1", made)
                    assert lab.head == before
                else:
                    lab.append("box-1", made)
                    assert stands(lab, Hoard)[0] == stands(lab, Box)[0] == lab.head
            elif verb == "elsewhere":
                other.append("box-2", made)
            elif verb in ("seal", "compact"):
                getattr(lab.store, verb)()
            else:
                getattr(lab, verb)(Hoard)
            for model in (Hoard, Box):
                assert lab.table(model).equals(lab.table(model, engine="rows"))
