"""Keys that are windows of the calendar, and sessions: one GROUP BY, or windows, and what the row fold gives."""

from __future__ import annotations

import datetime as dt
import itertools
import linecache
from dataclasses import replace
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay.lift.hostile import agree

import eventlab as el
from eventlab.model.models import model_of
from eventlab.model.types import from_us
from eventlab.replay.lift import fold_versions, plan_of

NEW_YORK = ZoneInfo("America/New_York")
GAP = dt.timedelta(minutes=30)


@el.event
class PageSeen:
    """A visitor looked at a page."""

    page: str


class Day(NamedTuple):
    day: dt.date


class Hour(NamedTuple):
    begins: dt.datetime
    page: str


class Month(NamedTuple):
    year: int
    month: int


class Week(NamedTuple):
    year: int
    week: int
    weekday: int


@el.projection
class ByDay:
    count: int = 0
    last: str | None = None

    @staticmethod
    def key(event: PageSeen, meta: el.Meta) -> Day:
        return Day(meta.occurred_at.date())

    def evolve(self, event: PageSeen) -> Self:
        return replace(self, count=self.count + 1, last=event.page)


@el.projection
class ByHour:
    count: int = 0
    last: str | None = None

    @staticmethod
    def key(event: PageSeen, meta: el.Meta) -> Hour:
        return Hour(meta.occurred_at.replace(minute=0, second=0, microsecond=0), event.page)

    def evolve(self, event: PageSeen) -> Self:
        return replace(self, count=self.count + 1, last=event.page)


@el.projection
class ByMidnight:
    count: int = 0
    last: str | None = None

    @staticmethod
    def key(event: PageSeen, meta: el.Meta) -> str:
        return f"{meta.occurred_at.replace(hour=0, minute=0, second=0, microsecond=0).date()}"

    def evolve(self, event: PageSeen) -> Self:
        return replace(self, count=self.count + 1, last=event.page)


@el.projection
class ByMonth:
    count: int = 0
    last: str | None = None

    @staticmethod
    def key(event: PageSeen, meta: el.Meta) -> Month:
        return Month(meta.occurred_at.year, meta.occurred_at.month)

    def evolve(self, event: PageSeen) -> Self:
        return replace(self, count=self.count + 1, last=event.page)


@el.projection
class ByMonthName:
    count: int = 0
    last: str | None = None

    @staticmethod
    def key(event: PageSeen, meta: el.Meta) -> str:
        return f"{meta.occurred_at.year:04d}-{meta.occurred_at.month:02d}/{event.page}"

    def evolve(self, event: PageSeen) -> Self:
        return replace(self, count=self.count + 1, last=event.page)


@el.projection
class ByWeek:
    count: int = 0
    last: str | None = None

    @staticmethod
    def key(event: PageSeen, meta: el.Meta) -> Week:
        week = meta.occurred_at.isocalendar()
        return Week(week.year, week.week, week.weekday)

    def evolve(self, event: PageSeen) -> Self:
        return replace(self, count=self.count + 1, last=event.page)


@el.projection
class ByMonday:
    count: int = 0
    last: str | None = None

    @staticmethod
    def key(event: PageSeen, meta: el.Meta) -> Day:
        day = meta.occurred_at.date()
        return Day(day - dt.timedelta(days=day.weekday()))

    def evolve(self, event: PageSeen) -> Self:
        return replace(self, count=self.count + 1, last=event.page)


@el.projection
class ByNewYorkDay:
    count: int = 0
    last: str | None = None

    @staticmethod
    def key(event: PageSeen, meta: el.Meta) -> Day | None:
        local = meta.occurred_at.astimezone(NEW_YORK)
        return Day(local.date()) if local.hour >= 6 else None

    def evolve(self, event: PageSeen) -> Self:
        return replace(self, count=self.count + 1, last=event.page)


@el.aggregate
class SiteVisit:
    """Of the last session how many pages, and how many sessions there were: a pause of half an hour begins another."""

    last: dt.datetime | None = None
    sessions: int = 0
    pages: int = 0

    def evolve(self, event: PageSeen, meta: el.Meta) -> Self:
        if self.last is None or meta.occurred_at - self.last > GAP:
            return replace(self, last=meta.occurred_at, sessions=self.sessions + 1, pages=1)
        return replace(self, last=meta.occurred_at, pages=self.pages + 1)


WINDOWS = (ByDay, ByHour, ByMidnight, ByMonth, ByMonthName, ByWeek, ByMonday, ByNewYorkDay)
#: About the changes of New York's clocks, the turns of years and of the epoch, and anywhere in between.
MOMENTS = st.one_of(
    st.sampled_from([
        "2026-03-08T06:59:59.999999", "2026-03-08T07:00", "2026-11-01T05:30", "2026-11-01T06:30", "2024-12-30T00:00",
        "2027-01-03T23:59:59.999999", "1969-12-31T23:59:59.999999", "1970-01-01T00:00", "1904-02-29T12:00",
    ]).map(lambda text: dt.datetime.fromisoformat(f"{text}+00:00")),
    st.integers(-2_208_988_800_000_000, 4_102_444_800_000_000).map(from_us),
)  # fmt: skip
SIGHTINGS = st.lists(st.tuples(st.sampled_from("12"), st.sampled_from("ab"), MOMENTS), max_size=12)


def written(lab: el.Lab, seen: list[tuple[str, str, dt.datetime]], layout: str) -> None:
    for at, (visit, page, moment) in enumerate(seen):
        lab.append(f"site_visit-{visit}", [el.new(PageSeen(page), occurred_at=moment)])
        if layout != "hot" and at == len(seen) // 2:
            lab.seal()
            if layout == "compacted":
                lab.compact(all=True)


@pytest.mark.parametrize("layout", ["hot", "sealed", "compacted"])
@pytest.mark.parametrize("model", WINDOWS, ids=lambda cls: cls.__name__)
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(seen=SIGHTINGS, data=st.data())
def test_a_window_of_the_calendar_is_a_key_of_the_query(
    model: type[Any], layout: str, seen: list[tuple[str, str, dt.datetime]], data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    with el.open(tmp_path_factory.mktemp("calendar") / "log", maintain=False) as lab:
        written(lab, seen, layout)
        cut, of = lab.store.cut(), model_of(model)
        until = data.draw(st.integers(0, cut.head), label="until")
        for end in (cut.head, until):
            agree(of, cut, "default", end, ("loop", "lifted"))


def test_every_window_lifts_whole() -> None:
    assert {field.engine for model in WINDOWS for field in plan_of(model_of(model)).explain().fields} == {"lifted"}


@pytest.mark.parametrize("layout", ["hot", "sealed", "compacted"])
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(starts=st.lists(st.tuples(st.sampled_from("12"), st.integers(0, 4_000)), max_size=14))
def test_a_session_ends_with_a_pause(
    layout: str, starts: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    begin, at, seen = dt.datetime(2026, 3, 8, 6, tzinfo=dt.UTC), 0, []
    for visit, pause in starts:
        at += pause
        seen.append((visit, "a", begin + dt.timedelta(seconds=at)))
    with el.open(tmp_path_factory.mktemp("sessions") / "log", maintain=False) as lab:
        written(lab, seen, layout)
        cut, of = lab.store.cut(), model_of(SiteVisit)
        agree(of, cut, "default", cut.head, ("loop", "lifted"))
        meant = fold_versions(of, cut, "default", cut.head, engine="rows")
        assert fold_versions(of, cut, "default", cut.head, engine="lifted").equals(meant)
        table = lab.table(SiteVisit)
    for visit in "12":
        times = [moment for of_, _, moment in seen if of_ == visit]
        gaps = [after - before > GAP for before, after in itertools.pairwise(times)]
        assert table.filter(_id=visit)["sessions"].to_list() == ([1 + sum(gaps)] if times else [])


@pytest.mark.parametrize(("how", "why"), [("minute=30", "set to 0"), ("second=0", "set to 0"), ("day=1", "set to 0")])
def test_what_rounds_to_nothing_of_the_calendar_is_refused(how: str, why: str) -> None:
    space: dict[str, Any] = {"el": el, "Hour": Hour, "PageSeen": PageSeen, "replace": replace}
    text = (
        f"class Odd:\n    count: int = 0\n    @staticmethod\n    def key(event: PageSeen, meta: el.Meta) -> Hour:\n"
        f"        return Hour(meta.occurred_at.replace({how}), '')\n"
        "    def evolve(self, event: PageSeen):\n        return replace(self, count=self.count + 1)\n"
    )
    linecache.cache["<odd>"] = (len(text), None, text.splitlines(True), "<odd>")
    exec(compile(text, "<odd>", "exec"), space)
    told = plan_of(model_of(el.projection(name=f"odd_{how[:3]}")(space["Odd"]))).explain()
    assert why in str(told)
