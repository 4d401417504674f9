"""Goldens: what models gave of a log at one position, kept in a folder, so that a later program can be held against it.

A golden is a JSON file that reads well in a diff, with the fingerprints of the table, the events, the code and the engines, and
a Parquet file with the table where it is not too long. What differs later is told apart: the events, the code, the engine; or
none of them, and the same code gave something else.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import cbor2
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.determinism.fingerprints import FORM, table_fingerprint
from eventlab.errors import InvalidValue
from eventlab.model.models import Model
from eventlab.replay.lift import fold_table
from eventlab.replay.rows import events_of
from eventlab.replay.tables import key_names
from eventlab.store.base import Cut, Tenant
from eventlab.store.columns import ENVELOPE_NAMES
from eventlab.store.words import many
from eventlab.temporal.diff import diff_tables

#: A longer table is kept by its fingerprint only.
TABLE_ROWS: Final = 100_000
#: What an answer may depend on beside the code and the events.
ENGINES: Final = ("eventlab", "duckdb", "polars", "pyarrow")

Verdict = Literal["same", "new", "other events", "the code changed", "the engine changed", "same code, different result"]


@dataclass(frozen=True)
class Golden:
    """What was kept: the position, and fingerprints of the table there, of the events before, of the code and the engines."""

    model: str
    position: int
    table: str
    events: str
    code: str
    engines: dict[str, str]
    form: int = FORM


@dataclass(frozen=True)
class Held:
    """A model held against its golden: the verdict, what it gives now, and the rows that differ (`frame`, as text)."""

    model: str
    verdict: Verdict
    kept: Golden | None
    found: Golden
    about: str
    frame: pl.DataFrame = field(repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the table is what it was."""
        return self.verdict == "same"

    def __str__(self) -> str:
        return f"{self.model}: {self.verdict}; {self.about}"

    def __repr__(self) -> str:
        return f"Held({self})"

    def to_dict(self) -> dict[str, Any]:
        """It as plain values, with the rows that differ."""
        return {
            "model": self.model, "verdict": self.verdict, "ok": self.ok, "about": self.about, "found": asdict(self.found),
            "kept": None if self.kept is None else asdict(self.kept), "rows": self.frame.to_dicts(),
        }  # fmt: skip


def held(models: Sequence[Model], folder: Path, cut: Cut, tenant: Tenant) -> list[Held]:
    """Hold models against their goldens in a folder, each at the position it was kept at; a model without one is "new"."""
    return [_held(model, folder, cut, tenant) for model in models]


def keep(models: Sequence[Model], folder: Path, cut: Cut, tenant: Tenant, until: int) -> None:
    """Write the goldens of models as of a position, in the place of those before."""
    folder.mkdir(parents=True, exist_ok=True)
    for model in models:
        table = fold_table(model, cut, tenant, until)
        golden, path = _golden(model, cut, tenant, until, table), folder / f"{model.name}.parquet"
        if len(table) <= TABLE_ROWS:
            _replaced(path, partial(pq.write_table, table, compression="zstd"))
        else:
            path.unlink(missing_ok=True)
        text = json.dumps(asdict(golden), indent=2, ensure_ascii=False) + "\n"
        _replaced(folder / f"{model.name}.json", partial(_write, text))


def _write(text: str, to: str) -> None:
    Path(to).write_text(text, encoding="utf-8")


def _replaced(path: Path, write: Callable[[str], object]) -> None:
    """Write a file beside, and put it in the place of the one before: a kill leaves one of the two."""
    write(f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def _held(model: Model, folder: Path, cut: Cut, tenant: Tenant) -> Held:
    kept = _read(folder / f"{model.name}.json")
    none = pl.DataFrame()
    if kept is None:
        table = fold_table(model, cut, tenant, cut.head)
        found = _golden(model, cut, tenant, cut.head, table)
        return Held(model.name, "new", None, found, f"nothing is kept yet; {many(len(table), 'row')} now", none)
    if kept.position > cut.head:
        raise InvalidValue(
            f"the golden of {model.name} was kept at position {kept.position:,}, and the log ends at {cut.head:,}",
            hint="it belongs to another log, or to one that lost events: eventlab verify",
        )
    table = fold_table(model, cut, tenant, kept.position)
    found = _golden(model, cut, tenant, kept.position, table)
    verdict = _verdict(kept, found)
    if verdict == "same":
        return Held(model.name, verdict, kept, found, f"{many(len(table), 'row')} at position {kept.position:,}", none)
    frame, about = _differences(model, folder / f"{model.name}.parquet", table, tenant)
    if verdict == "the engine changed":
        changed = [f"{n} {kept.engines.get(n, 'none')} → {found.engines.get(n, 'none')}" for n in sorted(found.engines)
                   if kept.engines.get(n) != found.engines.get(n)]  # fmt: skip
        about = f"{', '.join(changed)}; {about}"
    return Held(model.name, verdict, kept, found, about, frame)


def _verdict(kept: Golden, found: Golden) -> Verdict:
    if kept.events != found.events:
        return "other events"
    if kept.table == found.table:
        return "same"
    if kept.code != found.code:
        return "the code changed"
    return "the engine changed" if kept.engines != found.engines else "same code, different result"


def _differences(model: Model, path: Path, table: pa.Table, tenant: Tenant) -> tuple[pl.DataFrame, str]:
    if not path.is_file():
        return pl.DataFrame(), "the table that was kept is too long to be there, so its rows cannot be compared"
    frame = diff_tables(pq.read_table(path), table, key_names(model, tenant))
    fields = frame.group_by("field", maintain_order=True).len().rows()
    said = ", ".join(f"{name} in {many(count, 'row')}" for name, count in fields)
    return frame, f"what differs: {said or 'versions and positions only'}"


def _read(path: Path) -> Golden | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        found = Golden(**told)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as why:
        raise InvalidValue(f"{path} is no golden: {why}", hint="delete it, and accept anew") from None
    if found.form != FORM:
        raise InvalidValue(f"{path} is of form {found.form}; this eventlab reads {FORM}", hint="accept anew with this version")
    return found


def _golden(model: Model, cut: Cut, tenant: Tenant, until: int, table: pa.Table) -> Golden:
    engines = {name: version(name) for name in ENGINES} | {"python": platform.python_version()}
    print_ = table_fingerprint(model, table, tenant)
    return Golden(model.name, until, print_, events_fingerprint(model, cut, tenant, until), model.fingerprint, engines)


def events_fingerprint(model: Model, cut: Cut, tenant: Tenant, until: int) -> str:
    """The events that a model folds, in their order: their envelopes and payloads, however the store keeps them."""
    digest = hashlib.blake2b(digest_size=16, person=b"eventlab events")
    count = 0
    for batch in cut.batches(events_of(model), tenant=tenant, until=until, envelope=ENVELOPE_NAMES):
        for row in batch.rows():
            digest.update(cbor2.dumps([*row], canonical=True))
            count += 1
    return f"{count}-{digest.hexdigest()}"
