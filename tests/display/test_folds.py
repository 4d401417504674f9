"""What Jupyter shows of a fold's plan and of two definitions compared; and the plain repr stays plain."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any, Self

import pytest

import eventlab as el
from eventlab.display import html


@el.event
class DoughMixed:
    """Someone mixed dough."""

    flour: int
    name: str
    price: el.Money = el.money(0)


def bakery(step: int) -> type[Any]:
    @el.aggregate
    class Bakery:
        flour: int = 0
        much: bool = False
        paid: el.Money = el.money(0)

        def evolve(self, event: DoughMixed) -> Self:
            paid = self.paid + event.price
            return replace(self, flour=self.flour + step * event.flour, much=self.flour > 5, paid=paid)

    return Bakery


@el.aggregate
class Record:
    """A field that decides whether it changes."""

    mixed: int = 0
    most: int = 0

    def evolve(self, event: DoughMixed) -> Self:
        most = self.most + 1 if event.flour > self.most else self.most
        return replace(self, mixed=self.mixed + 1, most=most)


@el.aggregate
class Kneading:
    """A loop that changes what it holds."""

    names: tuple[str, ...] = ()

    def evolve(self, event: DoughMixed) -> Self:
        names = list(self.names)
        for _ in range(event.flour):
            names += [event.name]
        return replace(self, names=tuple(names))


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre"}


def filled(lab: el.Lab) -> el.Lab:
    lab.append("bakery-1", [DoughMixed(3, HOSTILE), DoughMixed(4, HOSTILE)])
    lab.append("bakery-2", [DoughMixed(0, "x")])
    return lab


@pytest.fixture
def lab() -> el.Lab:
    return filled(el.scratch())


def cells(text: str) -> list[list[str]]:
    """The rows of all tables, as text."""
    return [[unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in re.findall(r"<tr>(.*?)</tr>", text)]


def test_values_and_code_are_never_html_and_there_is_no_colour_of_its_own(lab: el.Lab) -> None:
    bakery(1)
    model = bakery(2)
    lab.sql("select 1")
    for text in (
        html.explanation_html(lab.explain(model)),
        html.explanation_html(lab.explain(Kneading)),
        html.explanation_html(replace(lab.explain(model), loop=HOSTILE, sql=HOSTILE, model=HOSTILE)),
        html.comparison_html(lab.compare(model)),
        html.comparison_html(replace(lab.compare(model), model=HOSTILE, notes=(HOSTILE,))),
    ):
        assert set(re.findall(r"<(\w+)", text)) <= TAGS
        assert "color" not in text
        assert "<style" not in text


def test_a_plan_shows_each_field_what_it_reads_and_each_guard(lab: el.Lab) -> None:
    plan = lab.explain(bakery(1))
    text = html.explanation_html(plan)
    assert ">Bakery: lifted, 3 of 3 fields lift<" in text
    rows = cells(text)
    assert ["flour", "SUM", "0", "lifted", ""] in rows
    assert ["much", "LAST", "1", "lifted", "flour"] in rows
    assert [guard.event for guard in plan.guards] == ["DoughMixed"]
    assert any(row[0] == "DoughMixed" and row[1].startswith("test_folds.py:") for row in rows if row)


def test_a_refusal_is_shown_with_its_line_and_what_would_lift_it(lab: el.Lab) -> None:
    refused = cells(html.explanation_html(lab.explain(Kneading)))
    assert ["", "for _ in range(event.flour):"] in refused
    assert ["why it does not lift", "a for loop is not lifted"] in refused
    assert any(row and row[0] == "line" and row[1].startswith("test_folds.py:") for row in refused)
    plan = lab.explain(Record)
    assert [field.field for field in plan.refusals] == ["most"]
    (row,) = [row for row in cells(html.explanation_html(plan)) if row and row[0] == "most"]
    assert row[-4:] == [plan.refusals[0].where, plan.refusals[0].text, plan.refusals[0].reason, plan.refusals[0].hint]
    assert row[-3] == "most = self.most + 1 if event.flour > self.most else self.most"


def test_the_query_and_the_loop_can_be_opened_and_files_are_only_counted(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        filled(lab).seal()
        plan = lab.explain(bakery(1))
        text = html.explanation_html(plan)
        assert str(tmp_path) in plan.sql
        assert str(tmp_path) not in text
        assert "read_parquet([1 file])" in text
        assert re.findall("<summary>(.*?)</summary>", text) == ["the query", "the loop"]
        assert "read_parquet" not in html.explanation_html(replace(plan, sql=""))


def test_two_definitions_show_their_fields_and_the_first_keys_that_part(lab: el.Lab) -> None:
    old, new = bakery(1), bakery(2)
    found = lab.compare(old, new)
    rows = cells(html.comparison_html(found))
    assert [row for row in rows if row][:1] == [["flour", "parts in 1 key, first at position 1; it differs at the end"]]
    assert ["1", "flour", "3", "6", "1", "1", "DoughMixed"] in rows
    assert ">all partings<" in html.comparison_html(found)
    lab.append({f"bakery-{n}": [DoughMixed(1, "x")] for n in range(10, 40)})
    assert ">the first 10 of 32 partings<" in html.comparison_html(lab.compare(old, new))
    assert "partings" not in html.comparison_html(lab.compare(new, new))


def test_the_plain_repr_of_a_plan_is_one_line_without_query_or_path(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        filled(lab).seal()
        assert repr(lab.explain(bakery(1))) == "Explanation(Bakery: lifted, 3 of 3 fields lift)"
