"""Lint of SQL: what may give another answer the next time is named, what may not is let pass; and DuckDB agrees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

import eventlab as el
from eventlab.determinism.sql_lint import SQL_RULES, lint_sql

FAULTY = {
    "select now() as at": ["S1"],
    "select current_date as day from events": ["S1"],
    "select random() as r, uuid() as id from events": ["S1", "S1"],
    "select * from events using sample 10% order by position": ["S1"],
    "select stream, first(type) as t from events group by stream": ["S2"],
    "select stream, string_agg(type, ',') as t from events group by stream": ["S2"],
    "select stream, list(type) as t from events group by stream": ["S2"],
    "select stream, arg_max(type, recorded_at) as t from events group by stream": ["S2"],
    "select stream, row_number() over (partition by stream) as n from events": ["S2"],
    "select sum(weight) as w from types.apple_weighed": ["S3"],
    "select avg(amount::double) as w from types.x": ["S3"],
    "select * from events limit 10": ["S4"],
    "with few as (select * from events limit 10) select count(*) as n from few": ["S4"],
    "select distinct on (stream) stream, type from events": ["S4"],
    "select a.x from a asof join b on a.k = b.k and a.at >= b.at": ["S5"],
}
SOUND = [
    "select stream, first(type order by position) as t from events group by stream",
    "select stream, string_agg(type, ',' order by position) as t from events group by stream",
    "select stream, arg_max(type, position) as t from events group by stream",
    "select stream, row_number() over (partition by stream order by position) as n from events",
    "select sum(grams) as g, avg(grams) as a from types.apple_weighed",
    "select fsum(weight) as w from types.apple_weighed",
    "select * from events order by position limit 10",
    "select a.x from a asof join b on a.k = b.k and a.position >= b.position",
    "select strftime(occurred_at, '%Y-%m') as month, count(*) as n from events group by month order by month",
    "select max(recorded_at) as last, bool_or(type = 'x') as any_x, count(distinct stream) as n from events",
    "select unnest(list_sort(list(distinct type order by type))) as t from events",
]


@pytest.mark.parametrize("text", FAULTY)
def test_what_may_differ_the_next_time_is_found(text: str) -> None:
    assert [found.code for found in lint_sql(text, {"weight"})] == FAULTY[text]


@pytest.mark.parametrize("text", SOUND)
def test_what_may_not_is_let_pass(text: str) -> None:
    assert lint_sql(text, {"weight"}) == []


def test_every_rule_is_there_with_a_reason_and_a_hint() -> None:
    assert {code for codes in FAULTY.values() for code in codes} == set(SQL_RULES)
    assert all(why and hint for why, hint in SQL_RULES.values())


def test_a_finding_has_its_line_and_a_reason_passes_it_over() -> None:
    text = "select stream,\n  first(type) as t  -- eventlab: ignore[S2]{}\nfrom events\ngroup by stream"
    (found,) = lint_sql(text.format(""))
    assert (found.code, found.line, found.said) == ("S2", 2, "first(type) has no ORDER BY")
    assert lint_sql(text.format(" all of one type")) == []
    assert lint_sql("this is no SQL") == []


def test_what_it_calls_a_chance_is_one() -> None:
    """DuckDB gives several answers to a query that S2 finds, over the same rows in other orders, and one to the sound one."""
    answers: dict[str, set[object]] = {"first(v)": set(), "first(v order by k)": set()}
    with duckdb.connect() as connection:
        for order in ("asc", "desc"):
            connection.execute(f"create or replace table t as select * from range(10) as r(k), (select 1) order by k {order}")
            connection.execute("alter table t rename column k to v; alter table t add column k bigint; update t set k = v")
            for text, seen in answers.items():
                seen.add(connection.execute(f"select {text} from t").fetchall()[0][0])
    assert [len(seen) for seen in answers.values()] == [2, 1]


@el.event
class AppleWeighed:
    """Somebody weighed an apple."""

    weight: float
    grams: int


FIRSTS = el.sql_projection(
    "apple_firsts", "select first(weight) as w, sum(weight) as s, 1 as k from types.apple_weighed", key="k"
)


def test_projections_by_hand_are_read_with_the_models() -> None:
    found = el.lint(FIRSTS)
    assert [(one.code, one.name) for one in found] == [("S2", "apple_firsts"), ("S3", "apple_firsts")]
    assert "line 1 of its query: sum(weight) adds floats" in str(found[1])
    assert all(one in el.lint() for one in found)


def test_a_shell_lints_them_too(tmp_path: Path) -> None:
    (tmp_path / "orchard.py").write_text(
        'import eventlab as el\n\n@el.event\nclass PearFell:\n    """A pear fell."""\n\n    grams: int\n\n'
        'pears = el.sql_projection("pears", "select stream, last(type) as t from events group by stream", key="stream")\n'
    )
    program = Path(sys.executable).parent / "eventlab"
    done = subprocess.run([program, "lint", "--models", "orchard"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "S2 pears: line 1 of its query: last(type) has no ORDER BY" in done.stdout
