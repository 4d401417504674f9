"""Snapshots: when the state of a stream is kept, and the proof that each one is what its events fold to.

A snapshot is known by the fingerprint of the code and schemas that made it, so a changed `evolve`, state, event or upcaster
never meets an old one. All of them can be deleted at any time: they are made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from eventlab.errors import InvalidValue
from eventlab.model.models import MODELS, Model
from eventlab.replay.tables import state_of
from eventlab.store.base import Store

#: Gives the state, version and position of a stream as of a position, from its first event on.
Fold = Callable[[Model, str, str, int], tuple[Any, int, int]]
_PROOF: Final[dict[str, Any]] = {
    "model": pl.String, "stream": pl.String, "version": pl.Int64, "verdict": pl.String, "field": pl.String, "kept": pl.String,
    "folded": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class SnapshotPolicy:
    """When a load keeps the state it came to: after so many events, when it took so long, when it had to open files.

    `el.open(path, snapshots=SnapshotPolicy(every=100))`; `snapshots=None` keeps none, and uses none either.
    """

    every: int | None = 500
    seconds: float | None = None
    files: bool = True

    def __post_init__(self) -> None:
        every, seconds = self.every, self.seconds
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise InvalidValue(f"every={every!r}: a snapshot every so many events, at least one", hint="or None")
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 <= seconds < float("inf")):
            raise InvalidValue(f"seconds={seconds!r}: when a load took so long", hint="or None")
        if not isinstance(self.files, bool):
            raise InvalidValue(f"files={self.files!r}: whether a load that opened files keeps its state", hint="True or False")

    def due(self, events: int, seconds: float, *, files: bool) -> bool:
        """Whether a state is kept that took so many events, so long, and files or none."""
        if not events:
            return False
        often = self.every is not None and events >= self.every
        slow = self.seconds is not None and seconds >= self.seconds
        return often or slow or (self.files and files)


def prove(store: Store, tenant: str, fold: Fold) -> pl.DataFrame:
    """Every snapshot of a tenant beside the fold of its stream from the first event on.

    `verdict` is "equal", "differs" (with the first field that does), or why it is not used: "other code", "no class here".
    """
    rows: list[tuple[Any, ...]] = []
    for stream, name, kept in store.snapshots(tenant):
        named = [model for model in MODELS.all() if model.name == name]
        of = next((model for model in named if model.fingerprint == kept.fingerprint), None)
        if of is None:
            rows.append((name, stream, kept.version, "other code" if named else "no class here", None, None, None))
            continue
        state, version, _ = fold(of, stream, tenant, kept.position)
        found = state_of(of, kept.state)
        differing = next((field for field, _ in of.fields if getattr(found, field) != getattr(state, field)), None)
        if version != kept.version:
            rows.append((name, stream, kept.version, "differs", "_version", str(kept.version), str(version)))
        elif differing is not None:
            values = (repr(getattr(found, differing)), repr(getattr(state, differing)))
            rows.append((name, stream, kept.version, "differs", differing, *values))
        else:
            rows.append((name, stream, kept.version, "equal", None, None, None))
    return pl.DataFrame(rows, schema=_PROOF, orient="row").sort("model", "stream")
