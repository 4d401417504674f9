"""A lazy frame of events is the frame of the same events, wherever they lie."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import eventlab as el


@el.event
class Weighed:
    """A parcel was put on the scales."""

    parcel: el.Tag[str]
    grams: int
    price: el.Money
    on: dt.date | None = None
    parts: tuple[str, ...] = ()
    took: dt.timedelta | None = None


@el.event
class Lost:
    """Nobody knows where the parcel is."""

    parcel: el.Tag[str]
    why: str = ""


STATES: dict[str, Callable[[el.Lab], object]] = {
    "hot": lambda lab: None,
    "sealed": lambda lab: lab.seal(),
    "compacted": lambda lab: (lab.seal(), lab.compact(all=True)),
}


@pytest.fixture(params=["memory", *STATES])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> el.Lab:
    made = el.scratch() if request.param == "memory" else el.open(tmp_path / "store", maintain=False)
    for i in range(20):
        weighed = Weighed(f"p{i % 3}", i, Decimal("9.50"), dt.date(2026, 1, 1 + i), ("a", "b")[: i % 3], dt.timedelta(seconds=i))
        made.append(f"parcel-{i % 3}", [weighed, Lost(f"p{i % 3}", "?")][: 1 + i % 2])
        made.append("depot-1", [Lost("p0")])
        if i == 12 and request.param != "memory":
            STATES[request.param](made)
    return made


FILTERS = [
    el.events(),
    el.events(Weighed),
    el.events(Lost) & el.category("parcel"),
    el.tag(parcel="p1") | el.stream("depot-1"),
    el.events(Weighed) & el.tag(parcel="p2"),
    el.events(Lost) & el.stream("parcel-0", "depot-1"),
]


@pytest.mark.parametrize("picked", FILTERS, ids=str)
@pytest.mark.parametrize(("after", "until"), [(0, None), (7, 31)])
def test_a_lazy_frame_collects_to_the_frame(lab: el.Lab, picked: el.Filter, after: int, until: int | None) -> None:
    events = lab.read(picked, after=after, until=until)
    lazy = events.lazy()
    assert isinstance(lazy, pl.LazyFrame)
    assert_frame_equal(lazy.sort("_position").collect().select(events.frame().columns), events.frame())


def test_a_moment_s_lazy_frame_does_not_see_what_came_later(lab: el.Lab) -> None:
    moment = lab.at(position=9)
    lab.append("parcel-9", [Lost("p9")])
    assert moment.read().lazy().select(pl.len(), pl.col("_position").max()).collect().row(0) == (9, 9)


def test_a_lazy_query_reads_no_more_than_it_looks_at(lab: el.Lab) -> None:
    mean = lab.read(el.events(Weighed)).lazy().select(pl.col("grams").mean()).collect().item()
    assert mean == lab.sql("select avg(grams) from types.weighed").item()


def test_a_limit_is_kept(lab: el.Lab) -> None:
    assert lab.read(limit=3).lazy().collect()["_position"].to_list() == [1, 2, 3]


def test_a_log_without_events_has_no_rows() -> None:
    assert el.scratch().read().lazy().collect().height == 0
