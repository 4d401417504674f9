"""An event in three versions, for the command line's tests; which one is defined is said by PARCELS."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Self

import eventlab as el


def first() -> type:
    @el.event(name="cli.ParcelPosted")
    class ParcelPosted:
        """A parcel was posted."""

        town: str
        weight: int

    return ParcelPosted


def renamed() -> type:
    @el.event(name="cli.ParcelPosted", version=2)
    class ParcelPosted:
        """A parcel was posted, and nobody said what became of the weight."""

        town: str
        grams: int = 0

    return ParcelPosted


def gap() -> type:
    @el.event(name="cli.ParcelPosted", version=3)
    class ParcelPosted:
        """A parcel was posted, and the way to here has no second step."""

        town: str
        kilos: int

    el.upcast(ParcelPosted, from_version=1)(lambda old: {"town": old.town, "grams": old.weight})
    return ParcelPosted


def broken() -> type:
    @el.event(name="cli.ParcelPosted", version=2)
    class ParcelPosted:
        """A parcel was posted, and there is no way to here."""

        town: str
        grams: int

    return ParcelPosted


Posted = {"first": first, "renamed": renamed, "gap": gap, "broken": broken}[os.environ.get("PARCELS", "first")]()


@el.aggregate(name="cli_parcel")
class Parcel:
    """How many parcels were posted."""

    count: int = 0

    def evolve(self, event: Posted) -> Self:  # type: ignore[valid-type]
        return replace(self, count=self.count + 1)
