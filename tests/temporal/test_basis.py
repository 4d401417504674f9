"""Bases: a saved one opens the same moment again, and says whether the log, the code or the engines differ from then."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import linecache
import pickle
import shutil
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

import eventlab as el
from eventlab.errors import InvalidValue
from eventlab.model.models import model_of
from eventlab.temporal.basis import drift
from eventlab.temporal.reader import Basis

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


@el.event(name="basis.Poured")
class BasisPoured:
    """Water was poured."""

    litres: int


@el.aggregate(name="basis_barrel")
class BasisBarrel:
    litres: int = 0

    def evolve(self, event: BasisPoured) -> Self:
        return replace(self, litres=self.litres + event.litres)


@el.projection(name="basis_total")
class BasisTotal:
    litres: int = 0

    @staticmethod
    def key(event: BasisPoured) -> str:
        return "all"

    def evolve(self, event: BasisPoured) -> Self:
        return replace(self, litres=self.litres + event.litres)


def pour(lab: el.Lab, *litres: int) -> None:
    for one in litres:
        lab.append("basis_barrel-a", [BasisPoured(one)])


def kept(basis: Basis) -> dict[str, Any]:
    """The basis as JSON keeps it."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(basis)))
    return found


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch() if request.param == "memory" else el.open(tmp_path / "store", maintain=False) as made:
        yield made


def test_a_basis_opens_its_moment_again(lab: el.Lab) -> None:
    for kilos in range(1, 5):
        lab.append("basis_barrel-a", [BasisPoured(kilos)], occurred_at=NOON + dt.timedelta(minutes=kilos))
    loaded = lab.at(position=2).loaded(BasisBarrel, "a")
    lab.append("basis_barrel-a", [BasisPoured(9)], occurred_at=NOON)
    for basis in (loaded.basis, kept(loaded.basis)):
        again = lab.at(basis=basis)
        assert again.load(BasisBarrel, "a") == loaded.state
        assert again.drift() == again.drift(basis) == again.drift(loaded.basis, BasisBarrel) == []
    by_occurrence = lab.at(occurred=NOON + dt.timedelta(minutes=2))
    saved = by_occurrence.basis
    lab.append("basis_barrel-a", [BasisPoured(50)], occurred_at=NOON)
    assert lab.at(basis=saved).load(BasisBarrel, "a").litres == by_occurrence.load(BasisBarrel, "a").litres == 12
    assert lab.at(basis=kept(saved)).drift() == []
    with el.scratch() as other, pytest.raises(InvalidValue, match="the basis is of the store"):
        other.at(basis=loaded.basis)
    with pytest.raises(InvalidValue, match="the log ends at"):
        lab.at(basis=replace(loaded.basis, position=99))


def test_a_basis_is_made_of_plain_values_and_comes_back_whole(lab: el.Lab) -> None:
    pour(lab, 1, 2, 3)
    moment = lab.at(position=2)
    moment.table(BasisTotal)
    for basis in (lab.basis, moment.basis, moment.loaded(BasisBarrel, "a").basis, lab.at(position=0).basis):
        assert Basis.of(kept(basis)) == basis == pickle.loads(pickle.dumps(basis))
        assert hash(Basis.of(kept(basis))) == hash(basis)
    event = moment.read().list()[1]
    assert moment.basis.event is not None
    assert moment.basis.event.startswith(f"{event.event_id} of {event.recorded_at:%Y-%m-%dT%H:%M:%S}")
    assert lab.at(position=0).basis.event is None
    with pytest.raises(InvalidValue, match="not opened from a basis"):
        moment.drift()


def test_the_same_log_is_never_accused_in_whatever_files_it_lies(tmp_path: Path) -> None:
    with el.open(tmp_path / "one", maintain=False) as lab:
        pour(lab, *range(1, 9))
        lab.append("basis_barrel-b", [BasisPoured(1), BasisPoured(2)])
        saved = [kept(lab.at(position=position).basis) for position in range(11)] + [kept(lab.basis)]
        states = [lab.at(position=position).table(BasisBarrel).rows() for position in (*range(11), 10)]

        def same() -> None:
            for basis, state in zip(saved, states, strict=True):
                moment = lab.at(basis=basis)
                assert (moment.drift(), moment.differs) == ([], ())
                assert moment.table(BasisBarrel).rows() == state
                assert moment.basis.event == basis["event"]

        same()
        pour(lab, 4, 5)
        same()
        lab.seal()
        same()
        pour(lab, 6)
        lab.seal()
        lab.compact(all=True)
        same()
    with el.open(tmp_path / "one", maintain=False) as lab:
        same()


@pytest.mark.parametrize("layout", ["hot", "sealed", "compacted"])
def test_a_copy_that_went_another_way_is_told_apart(tmp_path: Path, layout: str) -> None:
    with el.open(tmp_path / "one", maintain=False) as lab:
        pour(lab, 1, 2, 3)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with el.open(tmp_path / "one", maintain=False) as lab:
        pour(lab, 10, 20)
        basis, before, loaded = kept(lab.basis), kept(lab.at(position=3).basis), lab.loaded(BasisBarrel, "a").basis
        assert Basis.of(basis).event == loaded.event
    with el.open(tmp_path / "two", maintain=False) as lab:
        with pytest.raises(InvalidValue, match="the log ends at 3"):
            lab.at(basis=basis)
        assert lab.at(basis=before).drift(basis)[0] == "the log: it went to position 5 then, and ends at 3 now"
        pour(lab, 11, 21, 31)
        if layout != "hot":
            lab.seal()
        if layout == "compacted":
            lab.compact(all=True)
        now = lab.at(position=5).basis.event
        said = f"the log: at position 5 there was event {basis['event']} then, and there is {now} now"
        moment = lab.at(basis=basis)
        assert moment.drift() == moment.drift(loaded, BasisBarrel) == list(moment.differs) == [said]
        assert said in repr(moment)
        assert lab.at(basis=before).drift() == []
        assert "differs" not in repr(lab.at(basis=before))
        # Elsewhere in the log the event that the basis knows is looked for all the same.
        assert lab.at(position=2).drift(basis) == [said, "position 5 then, 2 now"]


def test_an_answer_that_was_kept_over_the_end_of_its_lab_has_no_event(tmp_path: Path) -> None:
    with el.open(tmp_path / "one", maintain=False) as lab:
        pour(lab, 1, 2)
        early, late = lab.loaded(BasisBarrel, "a").basis, lab.loaded(BasisBarrel, "a").basis
        known = early.event
    assert known is not None
    assert (early.event, late.event) == (known, None)
    with el.open(tmp_path / "one", maintain=False) as lab:
        assert lab.at(basis=early).drift() == lab.at(basis=late).drift() == []


def test_a_basis_of_another_tenant_is_refused(lab: el.Lab) -> None:
    def of(tenant: Any) -> el.Lab:
        return el.Lab(lab.store, tenant, clock=lab._clock, chance=lab._chance, path=lab.path)

    one, two, everyone = of("t1"), of("t2"), of(el.ALL)
    pour(one, 1, 2)
    pour(two, 10)
    basis = one.at(position=2).basis
    for other in (two, everyone):
        for given in (basis, kept(basis)):
            with pytest.raises(InvalidValue, match="the basis is of the tenant 't1', and this lab is of") as refused:
                other.at(basis=given)
            assert "el.open(path, tenant='t1')" in str(refused.value)
    with pytest.raises(InvalidValue, match="is of the tenant 'ALL'") as refused:
        one.at(basis=everyone.basis)
    assert "tenant=el.ALL" in str(refused.value)
    assert everyone.at(basis=everyone.basis).drift() == []
    assert one.at(basis=basis).load(BasisBarrel, "a") == BasisBarrel(3)
    with two.context(tenant="t1"):
        assert two.at(basis=basis).load(BasisBarrel, "a") == BasisBarrel(3)
    assert two.at(position=2).drift(basis) == ["tenant t1 then, t2 now"]


def test_a_basis_of_before_opens_and_knows_less(lab: el.Lab) -> None:
    pour(lab, 1, 2, 3)
    loaded = lab.at(position=2).loaded(BasisBarrel, "a")
    old = {name: value for name, value in kept(loaded.basis).items() if name not in ("event", "code")}
    moment = lab.at(basis=old)
    assert moment.load(BasisBarrel, "a") == loaded.state
    assert moment.drift(old) == moment.drift(old, BasisBarrel) == []
    assert [text.split()[0] for text in moment.drift({**old, "fingerprint": "f" * 32}, BasisBarrel)] == ["code"]


def test_the_code_of_each_model_that_a_moment_was_asked_for_is_compared(lab: el.Lab) -> None:
    pour(lab, 1, 2, 3)
    moment = lab.at(position=2)
    assert (moment.basis.code, moment.basis.fingerprint) == ((), None)
    moment.load(BasisBarrel, "a")
    moment.sql("select * from state.basis_total")
    barrel, total = (model_of(of).fingerprint for of in (BasisBarrel, BasisTotal))
    assert moment.basis.code == (("basis_barrel", barrel), ("basis_total", total))
    loaded = moment.loaded(BasisBarrel, "a").basis
    assert (loaded.fingerprint, loaded.code) == (barrel, (("basis_barrel", barrel),))
    saved = kept(moment.basis)
    assert lab.at(basis=saved).drift() == []
    saved["code"] = [["basis_barrel", "f" * 32], ["basis_gone", "a" * 32], ["basis_total", total]]
    again = lab.at(basis=saved)
    changed = f"code of basis_barrel ffffffff then, {barrel[:8]} now"
    assert again.drift() == [changed, "code of basis_gone aaaaaaaa then, not defined now"]
    assert again.drift(saved, BasisBarrel) == [changed]
    assert again.drift(saved, BasisTotal) == []
    # The answer of one model says nothing of the code of another.
    assert again.drift(loaded, BasisTotal) == []


CELL = """
@el.aggregate(name="basis_keg")
class BasisKeg:
    litres: int = 0

    def evolve(self, event: BasisPoured) -> "BasisKeg":
        return BasisKeg(self.litres + {times} * event.litres)
"""


def test_a_model_that_was_defined_again_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("basis_cells")
    module.__dict__.update(el=el, BasisPoured=BasisPoured)
    monkeypatch.setitem(sys.modules, "basis_cells", module)

    def defined(times: int) -> type[Any]:
        file, text = f"<cell {times} of basis_cells>", CELL.format(times=times)
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec", dont_inherit=True), vars(module))
        found: type[Any] = module.BasisKeg
        return found

    with el.scratch() as lab:
        lab.append("basis_keg-a", [BasisPoured(3)])
        first = defined(1)
        moment = lab.at(position=1)
        loaded = moment.loaded(first, "a")
        then = model_of(first).fingerprint
        saved = kept(moment.basis)
        now = model_of(defined(2)).fingerprint
        said = [f"code of basis_keg {then[:8]} then, {now[:8]} now"]
        assert lab.at(basis=saved).drift() == lab.at(basis=kept(loaded.basis)).drift() == said
        # So says the moment that was asked for the old definition, too.
        assert moment.drift(saved) == said


def test_drift_names_whatever_is_another(lab: el.Lab) -> None:
    pour(lab, 1, 2, 3)
    moment = lab.at(position=2)
    basis = moment.basis
    assert moment.drift(replace(basis, store="zz", position=77)) == [
        f"store zz then, {lab.store.store_id} now", "position 77 then, 2 now",
    ]  # fmt: skip
    duckdb, polars, pyarrow = basis.engines
    assert moment.drift(replace(basis, engines=("duckdb 0.1", polars, pyarrow))) == [f"duckdb 0.1 then, {duckdb} now"]
    assert moment.drift(replace(basis, engines=(pyarrow, duckdb))) == [f"no polars then, {polars} now"]
    assert moment.drift(replace(basis, engines=(*basis.engines, "other 1"))) == ["other 1 then, no other now"]
    assert moment.drift({**kept(basis), "engines": []}) == [f"no {of.split()[0]} then, {of} now" for of in basis.engines]
    occurred = lab.at(occurred=NOON).basis
    assert [text.split()[0] for text in moment.drift(occurred)] == ["position", "clock"]
    asked = "occurred 2026-05-01T13:00:00Z"
    assert lab.at(occurred=NOON).drift(replace(occurred, asked=asked)) == [f"asked {asked} then, {occurred.asked} now"]
    assert drift(kept(basis), basis) == []


WRONG = [
    ("position", -3), ("position", "3"), ("position", True), ("position", 1.0), ("head", None), ("clock", "sundial"),
    ("clock", ["recorded"]), ("store", 3), ("tenant", None), ("asked", b"x"), ("engines", "duckdb 1"), ("engines", [1]),
    ("engines", None), ("fingerprint", 7), ("inside_commit", 1), ("event", 7), ("code", {"a": "b"}), ("code", [["a"]]),
    ("code", 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_could_be_no_basis_is_refused_by_every_door(name: str, value: Any) -> None:
    with el.scratch() as lab:
        pour(lab, 1, 2, 3)
        moment = lab.at(position=2)
        for given in ({**kept(moment.basis), name: value}, replace(moment.basis, **{name: value})):
            for door in (lambda given: lab.at(basis=given), moment.drift, lambda given: drift(given, moment.basis)):
                with pytest.raises(InvalidValue, match=f"is not a basis: its {name} is ") as refused:
                    door(given)
                assert "lab.at(…).basis" in str(refused.value)


def test_fields_that_are_missing_or_unknown_are_named() -> None:
    with el.scratch() as lab:
        pour(lab, 1)
        whole = kept(lab.basis)
        for given, said in (
            ({**whole, "colour": "red"}, "is not a basis: it has colour"),
            ({name: value for name, value in whole.items() if name != "engines"}, "is not a basis: it lacks engines"),
            ({"position": 3}, "it lacks asked, clock, engines, head, store, tenant"),
            (7, "is not a basis"),
            ("head", "is not a basis"),
            ({**whole, "clock": "occurred"}, "asks 'head', which is no time"),
            ({**whole, "clock": "occurred", "asked": "occurred soon"}, "'soon' is not a time"),
        ):
            with pytest.raises(InvalidValue, match=said):
                lab.at(basis=given)  # type: ignore[arg-type]
            with pytest.raises(InvalidValue, match=said):
                lab.at(position=1).drift(given)  # type: ignore[arg-type]
