"""What is varied between two folds of the same log: everything that must not matter, and how much of it a level tries."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from typing import Final, Literal

from eventlab.errors import InvalidValue

Level = Literal["quick", "standard", "deep"]


@dataclass(frozen=True)
class Variant:
    """The conditions of one fold in a fresh process."""

    name: str
    hash_seed: int = 0
    time_zone: str = "UTC"
    locale: str = "C.UTF-8"
    batch: int = 131_072
    optimise: bool = False
    collector: bool = True
    folder: str = "/"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a fresh process gets."""
        return {"PYTHONHASHSEED": str(self.hash_seed), "TZ": self.time_zone, "LC_ALL": self.locale, "LANG": self.locale}

    def alone(self) -> list[Variant]:
        """The baseline with one of this variant's conditions each; the first is the baseline once more, the second its seed."""
        found = [replace(BASELINE, name="nothing: it differs from run to run")]
        for field, said in _SAID.items():
            value = getattr(self, field)
            if value != getattr(BASELINE, field):
                found.append(replace(BASELINE, name=said.format(value), **{field: value}))
        return found


_SAID: Final = {
    "hash_seed": "the hash seed ({})", "time_zone": "the time zone ({})", "locale": "the locale ({})", "batch": "batches of {}",
    "optimise": "python -O", "collector": "no garbage collector", "folder": "the working directory",
}  # fmt: skip
BASELINE: Final = Variant("baseline")
#: Kiritimati is 14 hours ahead and the next one 12 behind: on one of them it is always another day than in UTC.
_EVERYTHING: Final = Variant(
    "another hash seed, Kiritimati, batches of 7, python -O", 4_242, "Pacific/Kiritimati", "POSIX", 7, optimise=True,
    collector=False, folder=tempfile.gettempdir(),
)  # fmt: skip
VARIANTS: Final = (
    _EVERYTHING,
    Variant("another hash seed, 12 hours behind, batches of 1,000", 1, "Etc/GMT+12", "C.UTF-8", 1_000),
    Variant("another hash seed, Kolkata, one event at a time", 77, "Asia/Kolkata", "C", 1),
    Variant("another hash seed, Lord Howe, batches of 100, python -O", 99, "Australia/Lord_Howe", "POSIX", 100, optimise=True),
)
_MORE: Final = (
    Variant("another hash seed, New York, batches of 3", 123_456, "America/New_York", "C.UTF-8", 3),
    Variant("another hash seed, Berlin, all at once", 3, "Europe/Berlin", "C", 1 << 30, collector=False),
)


@dataclass(frozen=True)
class Effort:
    """How much a level tries: variants, from how many bases a fold goes on (0: no other ways), events under the sensor."""

    level: str
    variants: tuple[Variant, ...]
    bases: int
    sensed: int
    #: One state in so many is compared on the way; the tables at the end are in any case.
    stride: int = 1


QUICK: Final = Effort("quick", VARIANTS[:1], 0, 2_000, stride=8)
STANDARD: Final = Effort("standard", VARIANTS, 2, 20_000)
DEEP: Final = Effort("deep", (*VARIANTS, *_MORE), 7, 200_000)
#: The variants of a standard check, and no other ways to fold.
FOLDS: Final = replace(STANDARD, bases=0)


def effort_of(level: str) -> Effort:
    """What a level tries; `InvalidValue` where there is none of the name."""
    found = {effort.level: effort for effort in (QUICK, STANDARD, DEEP)}.get(level)
    if found is None:
        raise InvalidValue(f"level={level!r}", hint="'quick', 'standard' or 'deep'")
    return found
