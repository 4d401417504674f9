"""One fold in a fresh process: `python -m eventlab.determinism.worker`, a job as JSON in, fingerprints as JSON out.

The parent starts it with another hash seed, time zone and locale; nothing is unpickled, and models are found by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.determinism.fingerprints import Chain, digest, state_values, table_fingerprint
from eventlab.errors import EventlabError, ModelError
from eventlab.model.models import Model, model_of
from eventlab.replay.rows import RowFold, batches_of
from eventlab.replay.tables import table_of
from eventlab.store.base import ALL, Batch, Cut, Tenant
from eventlab.store.disk import open_store


@dataclass(frozen=True)
class Job:
    """What to fold: models by reference, up to a position, one stream in `sample`, so many events at a time.

    With `window` the states after the events between two positions come back; with `chain` their running digests.
    """

    store: str
    tenant: str | None
    models: tuple[str, ...]
    until: int
    sample: int
    batch: int
    chain: int = 0
    window: tuple[int, int] | None = None
    path: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What one model's fold gave: events, keys, the table's fingerprint, checkpoints, states, or the error it raised."""

    events: int
    fingerprint: str
    types: dict[str, int]
    checkpoints: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    states: list[tuple[int, str, str, str, list[str]]] = dataclasses.field(default_factory=list)
    error: str | None = None
    error_position: int | None = None


def import_model(reference: str) -> Model:
    """The model that `package.module:Name` names."""
    module, _, name = reference.partition(":")
    if module == "__main__" or "<locals>" in name:
        raise ModelError(f"{reference} cannot be found by another process", hint="move it to a module that can be imported")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as why:
        raise ModelError(
            f"{reference} cannot be imported: {why}", hint="package.module:Name, and the module on the path"
        ) from None
    return model_of(found)


def run(job: Job) -> dict[str, Outcome]:
    """Fold every model of a job."""
    store = open_store(job.store, now=lambda: 0, create=False)
    try:
        cut = store.cut()
        return {reference: _fold(import_model(reference), job, cut) for reference in job.models}
    finally:
        store.close()


def _fold(model: Model, job: Job, cut: Cut) -> Outcome:
    tenant: Tenant = ALL if job.tenant is None else job.tenant
    chain = Chain(model, job.chain) if job.chain else None
    states: list[tuple[int, str, str, str, list[str]]] = []
    types: dict[str, int] = {}

    def watch(key: Any, event: Any, state: Any, position: int) -> None:
        if chain is not None:
            chain.add(key, event, state, position)
        if job.window is not None and job.window[0] < position <= job.window[1]:
            values = state_values(model, state)
            shown = [_shown(kind.decode(v)) for (_, kind), v in zip(model.fields, values, strict=True)]
            states.append((position, repr(key), type(event).__name__, digest(values).hex(), shown))

    folding = RowFold(model, tenant, watch=watch if chain is not None or job.window is not None else None)
    error, error_position = None, None
    try:
        for batch in _sampled(batches_of(model, cut, tenant, until=job.until), job.sample):
            for part in batch.split(job.batch):
                folding.feed(part)
            for name in batch.envelope.type:
                types[name] = types.get(name, 0) + 1
        fingerprint = table_fingerprint(model, table_of(model, folding.entries, tenant), tenant)
    except EventlabError as why:
        fingerprint, error, error_position = "", why.message, why.facts.get("position")
    if chain is not None:
        chain.close()
    return Outcome(folding.events, fingerprint, types, chain.checkpoints if chain else [], states, error, error_position)


def _shown(value: Any) -> str:
    """A value as text; a set in an order that is the same in every process."""
    return repr(sorted(value, key=repr)) if isinstance(value, (set, frozenset)) else repr(value)


def _sampled(batches: Iterator[Batch], sample: int) -> Iterator[Batch]:
    """The events of one stream in `sample`, chosen by a checksum of its name."""
    for batch in batches:
        if sample <= 1:
            yield batch
            continue
        tables = []
        for table in batch.tables:
            streams = table.column("stream").combine_chunks().dictionary_encode()
            chosen = np.array([zlib.crc32(s.encode()) % sample == 0 for s in streams.dictionary.to_pylist()], bool)
            part = table.filter(pc.take(pa.array(chosen), streams.indices)) if len(chosen) else table
            if len(part):
                tables.append(part)
        if tables:
            yield Batch(tuple(tables), batch.schemas)


def main() -> None:
    """Read a job from stdin, write outcomes to stdout."""
    raw = json.load(sys.stdin)
    raw["models"], raw["path"] = tuple(raw["models"]), tuple(raw["path"])
    raw["window"] = tuple(raw["window"]) if raw["window"] else None
    job = Job(**raw)
    sys.path[:0] = [entry for entry in job.path if entry not in sys.path]
    try:
        outcomes = run(job)
    except EventlabError as why:
        json.dump({"refused": [type(why).__name__, why.message, why.hint]}, sys.stdout)
        return
    json.dump({reference: dataclasses.asdict(outcome) for reference, outcome in outcomes.items()}, sys.stdout)


if __name__ == "__main__":
    main()
