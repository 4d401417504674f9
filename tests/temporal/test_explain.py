"""The plan of a fold over a log: the query is written out and not run, whatever was folded before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

import eventlab as el
from eventlab.errors import ModelError


@el.event
class KegTapped:
    """Beer was drawn."""

    litres: int


@el.aggregate
class Keg:
    drawn: int = 0
    most: int = 0

    def evolve(self, event: KegTapped) -> Self:
        return replace(self, drawn=self.drawn + event.litres, most=max(self.most, event.litres))


@el.aggregate(name="keg_record")
class KegRecord:
    """A field that decides whether it changes is a loop."""

    most: int = 0

    def evolve(self, event: KegTapped) -> Self:
        return replace(self, most=self.most + 1 if event.litres > self.most else self.most)


@pytest.fixture
def lab(tmp_path: Path) -> el.Lab:
    lab = el.open(tmp_path / "log", maintain=False)
    lab.append("keg-1", [KegTapped(3), KegTapped(4)])
    lab.seal()
    lab.append("keg-1", [KegTapped(5)])
    return lab


def test_the_query_is_there_before_anything_was_folded_and_stays_the_table_s(lab: el.Lab) -> None:
    with lab:
        first = lab.explain(Keg)
        assert (first.engine, first.model) == ("lifted", "Keg")
        assert "read_parquet" in first.sql
        assert "position <= 3" in first.sql
        lab.table(Keg, engine="lifted")
        lab.versions(Keg, engine="lifted")
        assert "GROUP BY" in lab.explain(Keg).sql
        assert lab.explain(Keg) == first


def test_a_moment_explains_the_query_up_to_its_position(lab: el.Lab) -> None:
    with lab:
        assert "position <= 2" in lab.at(position=2).explain(Keg).sql


def test_without_events_there_is_no_query_and_the_plan_is_the_same() -> None:
    with el.scratch() as lab:
        plan = lab.explain(Keg)
        assert (plan.engine, plan.sql, [field.kind for field in plan.fields]) == ("lifted", "", ["SUM", "MAX"])


def test_a_fold_by_the_loop_has_no_query_and_says_why(lab: el.Lab) -> None:
    with lab:
        plan = lab.explain(KegRecord)
        assert (plan.engine, plan.sql) == ("loop", "")
        (refusal,) = plan.refusals
        assert refusal.where.startswith("test_explain.py:")
        assert refusal.text == "return replace(self, most=self.most + 1 if event.litres > self.most else self.most)"
        assert compile(plan.loop, "loop", "exec")


def test_what_is_no_model_has_no_plan() -> None:
    with el.scratch() as lab, pytest.raises(ModelError, match="int is not a model"):
        lab.explain(int)
