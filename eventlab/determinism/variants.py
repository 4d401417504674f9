"""What is varied between two folds of the same log: everything that must not matter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """The conditions of one fold in a fresh process."""

    name: str
    hash_seed: int
    time_zone: str
    locale: str
    batch: int
    optimise: bool = False

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONHASHSEED": str(self.hash_seed), "TZ": self.time_zone, "LC_ALL": self.locale, "LANG": self.locale}


BASELINE = Variant("baseline", 0, "UTC", "C.UTF-8", 131_072)
VARIANTS = (
    Variant("another hash seed, New York, batches of 1,000", 1, "America/New_York", "C.UTF-8", 1_000),
    Variant("another hash seed, Kolkata, batches of 7", 4_242, "Asia/Kolkata", "C", 7),
    Variant("another hash seed, Lord Howe, batches of 100, python -O", 99, "Australia/Lord_Howe", "POSIX", 100, optimise=True),
)
