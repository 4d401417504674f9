"""The flights that left New York in 2013: what happened to each, and four tables folded from it.

Read top to bottom: the events, the aggregate, the projections, and where the events come from. `nycflights13.py` beside
this file takes the source's rows apart; `eventlab demo` runs the whole of it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Literal, NamedTuple, Self

import eventlab as el
from eventlab.domains import nycflights13

# -- events: what can happen to a flight -----------------------------------------------------------------------------------


@el.event
class FlightScheduled:
    """The airline published the flight for this day."""

    carrier: str
    flight: int
    origin: str
    destination: str
    tail: el.Tag[str] | None
    date: dt.date
    scheduled_at: dt.datetime
    distance: int


@el.event
class FlightDeparted:
    """The aircraft left the gate; `delay` in minutes, negative when it left early."""

    carrier: str
    flight: int
    origin: str
    destination: str
    tail: el.Tag[str] | None
    delay: int


@el.event
class FlightArrived:
    """The aircraft reached the gate of its destination; minutes and miles, None where the record does not say."""

    carrier: str
    flight: int
    origin: str
    destination: str
    tail: el.Tag[str] | None
    air_time: int | None
    delay: int | None
    distance: int


@el.event
class FlightCancelled:
    """The flight did not take place."""

    carrier: str
    flight: int
    origin: str
    destination: str
    tail: el.Tag[str] | None


FlightEvent = FlightScheduled | FlightDeparted | FlightArrived | FlightCancelled

# -- the aggregate: one flight ---------------------------------------------------------------------------------------------


@el.aggregate
class Flight:
    """One flight on one day: stream `flight-<date>-<carrier>-<number>-<origin>`."""

    status: Literal["unknown", "scheduled", "in the air", "arrived", "cancelled"] = "unknown"
    carrier: str = ""
    origin: str = ""
    destination: str = ""
    tail: str | None = None
    date: dt.date | None = None
    scheduled_at: dt.datetime | None = None
    departed_at: dt.datetime | None = None
    arrived_at: dt.datetime | None = None
    departure_delay: int | None = None
    arrival_delay: int | None = None

    def evolve(self, event: FlightEvent, meta: el.Meta) -> Self:
        match event:
            case FlightScheduled():
                return replace(
                    self,
                    status="scheduled",
                    carrier=event.carrier,
                    origin=event.origin,
                    destination=event.destination,
                    tail=event.tail,
                    date=event.date,
                    scheduled_at=event.scheduled_at,
                )
            case FlightDeparted(delay=delay):
                return replace(self, status="in the air", departed_at=meta.occurred_at, departure_delay=delay)
            case FlightArrived(delay=delay):
                return replace(self, status="arrived", arrived_at=meta.occurred_at, arrival_delay=delay)
            case FlightCancelled():
                return replace(self, status="cancelled")
        return self


# -- projections: tables with keys of their own ----------------------------------------------------------------------------


@el.projection
class Aircraft:
    """What each aircraft did, by tail number."""

    flights: int = 0
    departed: int = 0
    cancelled: int = 0
    minutes_in_the_air: int = 0
    miles: int = 0

    @staticmethod
    def key(event: FlightEvent) -> str | None:
        return event.tail

    def evolve(self, event: FlightEvent) -> Self:
        match event:
            case FlightScheduled():
                return replace(self, flights=self.flights + 1)
            case FlightDeparted():
                return replace(self, departed=self.departed + 1)
            case FlightArrived(air_time=minutes, distance=miles) if minutes is not None:
                return replace(self, minutes_in_the_air=self.minutes_in_the_air + minutes, miles=self.miles + miles)
            case FlightCancelled():
                return replace(self, cancelled=self.cancelled + 1)
        return self


class CarrierAndDay(NamedTuple):
    """A carrier on a day in UTC."""

    carrier: str
    day: dt.date


@el.projection
class CarrierDay:
    """How punctual each carrier was, day by day; delays in minutes."""

    departed: int = 0
    cancelled: int = 0
    delayed: int = 0
    total_delay: int = 0
    worst_delay: int = 0

    @staticmethod
    def key(event: FlightDeparted | FlightCancelled, meta: el.Meta) -> CarrierAndDay:
        return CarrierAndDay(event.carrier, meta.occurred_at.date())

    def evolve(self, event: FlightDeparted | FlightCancelled) -> Self:
        match event:
            case FlightDeparted(delay=delay):
                return replace(
                    self,
                    departed=self.departed + 1,
                    delayed=self.delayed + (delay > 15),
                    total_delay=self.total_delay + delay,
                    worst_delay=max(self.worst_delay, delay),
                )
            case FlightCancelled():
                return replace(self, cancelled=self.cancelled + 1)
        return self


@el.projection
class AirportBoard:
    """The departures board of each airport of origin: what it shows after the latest event."""

    scheduled: int = 0
    departed: int = 0
    cancelled: int = 0
    last_departure: str = ""
    last_departure_at: dt.datetime | None = None
    destinations: frozenset[str] = frozenset()

    @staticmethod
    def key(event: FlightScheduled | FlightDeparted | FlightCancelled) -> str:
        return event.origin

    def evolve(self, event: FlightScheduled | FlightDeparted | FlightCancelled, meta: el.Meta) -> Self:
        match event:
            case FlightScheduled(destination=place):
                return replace(self, scheduled=self.scheduled + 1, destinations=self.destinations | {place})
            case FlightDeparted(carrier=carrier, flight=number, destination=place):
                shown = f"{carrier} {number} to {place}"
                return replace(self, departed=self.departed + 1, last_departure=shown, last_departure_at=meta.occurred_at)
            case FlightCancelled():
                return replace(self, cancelled=self.cancelled + 1)
        return self


MODELS = (Flight, Aircraft, CarrierDay, AirportBoard)

# -- where the events come from --------------------------------------------------------------------------------------------

SOURCE = "nycflights13"


def sources(frames: nycflights13.FlightFrames) -> list[el.Rows]:
    """The four frames as sources of an ingest: one event a row, in the stream of its flight, at the time it occurred."""
    pairs = (
        (FlightScheduled, frames.scheduled),
        (FlightDeparted, frames.departed),
        (FlightArrived, frames.arrived),
        (FlightCancelled, frames.cancelled),
    )
    return [el.rows(kind, frame, stream="flight-{id}", occurred_at="at") for kind, frame in pairs]
