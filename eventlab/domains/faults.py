"""Two folds with a fault each, planted so that a check has something to find. Never write an `evolve` like these."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Self

import eventlab as el
from eventlab.domains.flights import FlightDeparted, FlightScheduled


@el.projection
class DestinationsInSetOrder:
    """Keeps the destinations of each airport in the order in which a set gives them: it changes with the hash seed."""

    destinations: tuple[str, ...] = ()

    @staticmethod
    def key(event: FlightScheduled) -> str:
        return event.origin

    def evolve(self, event: FlightScheduled) -> Self:
        return replace(self, destinations=tuple({*self.destinations, event.destination}))


@el.projection
class LastSeenByTheClock:
    """Keeps the time at which the fold ran instead of the time at which the flight departed."""

    departures: int = 0
    seen_at: dt.datetime | None = None

    @staticmethod
    def key(event: FlightDeparted) -> str:
        return event.origin

    def evolve(self, event: FlightDeparted) -> Self:
        return replace(self, departures=self.departures + 1, seen_at=dt.datetime.now(dt.UTC))
