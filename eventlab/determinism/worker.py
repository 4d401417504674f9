"""One job in a fresh process: `python -m eventlab.determinism.worker`, a job as JSON in, an outcome a line as JSON out.

The parent starts it with another hash seed, time zone and locale; nothing is unpickled, and models are found by name. What a
fold prints does not get between: the answers go to a descriptor of their own. The process ends with its parent. This is no
sandbox: a fold can do here whatever it could do there.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import importlib
import io
import json
import mmap
import os
import signal
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.determinism.fingerprints import Chain, digest, state_values, table_fingerprint
from eventlab.determinism.sensor import Sensor, Touch
from eventlab.determinism.ways import Parted, Tried, every_way
from eventlab.errors import EventlabError, ModelError
from eventlab.model.models import Model, model_of
from eventlab.replay.lift import fold_table, fold_versions
from eventlab.replay.rows import RowFold, batches_of
from eventlab.replay.tables import key_names, table_of
from eventlab.store.base import ALL, Batch, Cut, Tenant
from eventlab.store.disk import open_store

#: The first events are folded in batches as small as a variant says; those after them in larger ones.
SMALL: Final = 10_000
LARGE: Final = 10_000


@dataclass(frozen=True)
class Job:
    """What to fold: models by reference, up to a position, one stream in `sample`, so many events at a time.

    With `window` the states after the events between two positions come back; with `chain` running digests of one in `stride`
    of them; with `bases` the other ways to fold are held against the row fold, the `part`-th of `parts` of them; `sensed`
    events are folded once more under the sensor; `kept` names a folder where each table is left, or, with `lives`, the states
    after each event of the keys that this file lists. `board` is a file in which the process says how far it is.
    """

    store: str
    tenant: str | None
    models: tuple[str, ...]
    until: int
    sample: int = 1
    batch: int = 131_072
    chain: int = 0
    stride: int = 1
    window: tuple[int, int] | None = None
    path: tuple[str, ...] = ()
    bases: int = 0
    part: int = 0
    parts: int = 1
    sensed: int = 0
    kept: str = ""
    lives: str = ""
    board: str = ""
    collector: bool = True
    parent: int = 0


@dataclass
class Outcome:
    """What one model's fold gave: events, keys, the table's fingerprint, checkpoints, states, or the error it raised."""

    events: int = 0
    fingerprint: str = ""
    types: dict[str, int] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=dict)
    checkpoints: list[tuple[int, str]] = field(default_factory=list)
    states: list[tuple[int, str, str, str, list[str]]] = field(default_factory=list)
    error: str | None = None
    error_position: int | None = None
    tried: Tried = field(default_factory=Tried)
    touches: list[Touch] = field(default_factory=list)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Outcome:
        """An outcome from its JSON."""
        raw["checkpoints"] = [(position, digest) for position, digest in raw["checkpoints"]]
        raw["states"] = [tuple(state) for state in raw["states"]]
        tried = raw["tried"]
        parted = None if tried["parted"] is None else Parted(**tried["parted"])
        raw["tried"] = Tried(tuple(tried["ways"]), tuple(tried["skipped"]), parted)
        raw["touches"] = [Touch(**touch) for touch in raw["touches"]]
        return cls(**raw)


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


# -- what the parent sees --------------------------------------------------------------------------------------------------

#: Where a process is: the number of its model, and the position of the last event it folded.
WHERE: Final = struct.Struct("<qq")
#: Of `WHERE`: it is not in the code of a fold.
ELSEWHERE: Final = -1


class Board:
    """Where this process is, in a file that its parent reads while it runs."""

    def __init__(self, path: str) -> None:
        self._memory: mmap.mmap | bytearray = bytearray(WHERE.size)
        if path:
            with open(path, "r+b") as file:
                self._memory = mmap.mmap(file.fileno(), WHERE.size)
        self.model, self.position = 0, 0

    def at(self, position: int) -> None:
        """The event at this position was folded."""
        self.position = position
        WHERE.pack_into(self._memory, 0, self.model, position)

    def elsewhere(self) -> None:
        """Something else goes on, and takes as long as it takes."""
        WHERE.pack_into(self._memory, 0, self.model, ELSEWHERE)


class Said(io.TextIOBase):
    """What takes the place of standard output: it keeps the beginning, and where the fold was then."""

    def __init__(self, board: Board) -> None:
        self.text, self.position, self._board = "", 0, board

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Take text."""
        if not self.text:
            self.position = self._board.position
        self.text = (self.text + text)[:200]
        return len(text)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# -- the work --------------------------------------------------------------------------------------------------------------


def run(job: Job, out: TextIO, board: Board, said: Said) -> None:
    """Do the job for every model, and say what came of each as soon as it is there."""
    store = open_store(job.store, now=lambda: 0, create=False)
    try:
        cut = store.cut()
        for number, reference in enumerate(job.models):
            board.model = number
            board.elsewhere()
            outcome = _outcome(import_model(reference), job, cut, board, said)
            json.dump([reference, dataclasses.asdict(outcome)], out)
            out.write("\n")
            out.flush()
    finally:
        store.close()


def _outcome(model: Model, job: Job, cut: Cut, board: Board, said: Said) -> Outcome:
    tenant: Tenant = ALL if job.tenant is None else job.tenant
    if job.bases:
        return Outcome(tried=every_way(model, cut, tenant, job.until, job.bases, job.part, job.parts))
    if job.kept:
        return _kept(model, job, cut, tenant)
    said.text, board.position = "", 0
    outcome = _fold(model, job, cut, tenant, board)
    if outcome.error is not None and job.chain > 1:
        # States are encoded some at a time: which of them has no stored form shows one by one.
        outcome = _fold(model, dataclasses.replace(job, chain=1, stride=1), cut, tenant, board)
    if said.text:
        position, stream, kind = event_after(model, cut, tenant, said.position, job)
        outcome.touches.append(Touch(f"prints {said.text.strip()[:60]!r}", "", position, stream, kind))
    if job.sensed:
        outcome.touches += _touches(model, job, cut, tenant, board)
    return outcome


def _fold(model: Model, job: Job, cut: Cut, tenant: Tenant, board: Board) -> Outcome:
    chain = Chain(model, job.chain, job.stride) if job.chain else None
    found, at = Outcome(), board.at

    def watch(key: Any, event: Any, state: Any, position: int) -> None:
        at(position)
        if chain is not None:
            chain.add(key, event, state, position)
        if job.window is not None and job.window[0] < position <= job.window[1]:
            values = state_values(model, state)
            shown = [_shown(kind.decode(v)) for (_, kind), v in zip(model.fields, values, strict=True)]
            found.states.append((position, repr(key), type(event).__name__, digest(values).hex(), shown))

    folding = RowFold(model, tenant, watch=watch)
    try:
        board.at(0)
        for batch in sampled(batches_of(model, cut, tenant, until=job.until), job.sample):
            # To cut all of a long log into small pieces takes longer than to fold it: the first thousands will do.
            for large in batch.split(max(job.batch, LARGE)):
                for part in large.split(job.batch) if folding.events < SMALL else (large,):
                    folding.feed(part)
            _count(batch, found)
        if chain is not None:
            chain.close()
        board.elsewhere()
        table = table_of(model, folding.entries, tenant)
        found.fingerprint = table_fingerprint(model, table, tenant)
    except EventlabError as why:
        found.error, found.error_position = why.message, why.facts.get("position")
    found.events = folding.events
    found.checkpoints = chain.checkpoints if chain else []
    return found


def _kept(model: Model, job: Job, cut: Cut, tenant: Tenant) -> Outcome:
    """Leave a table in the folder: the model's, or the states after each event of the keys that a file lists."""
    try:
        if job.lives:
            frame = pl.DataFrame(pl.from_arrow(fold_versions(model, cut, tenant, job.until)))
            name, keys = f"{model.name}.lives", key_names(model, tenant)
            table = frame.join(pl.read_ipc(job.lives), on=list(keys), how="semi", nulls_equal=True).to_arrow()
        else:
            name, table = model.name, fold_table(model, cut, tenant, job.until)
    except EventlabError as why:
        return Outcome(error=why.message, error_position=why.facts.get("position"))
    with pa.OSFile(str(Path(job.kept) / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return Outcome(events=len(table))


def _count(batch: Batch, found: Outcome) -> None:
    """Which types there were, and in which versions of their schemas."""
    for table in batch.tables:
        for row in table.group_by(["type", "schema_version"]).aggregate([([], "count_all")]).to_pylist():
            found.types[row["type"]] = found.types.get(row["type"], 0) + row["count_all"]
            versions = found.versions.setdefault(row["type"], [])
            if row["schema_version"] not in versions:
                versions.append(row["schema_version"])
                versions.sort()


def _touches(model: Model, job: Job, cut: Cut, tenant: Tenant, board: Board) -> Iterator[Touch]:
    """Fold the first events once more under the sensor; what they give is of no interest."""
    left, sensor = job.sensed, Sensor(board)
    folding = RowFold(model, tenant, watch=lambda _key, _event, _state, position: board.at(position))
    with contextlib.suppress(EventlabError), sensor:
        board.at(0)
        for batch in sampled(batches_of(model, cut, tenant, until=job.until), job.sample):
            for part in batch.split(min(left, 10_000)):
                folding.feed(part)
                left -= len(part)
                if left <= 0:
                    break
            if left <= 0:
                break
    board.elsewhere()
    for what, (place, after) in sensor.found.items():
        yield Touch(what, place, *event_after(model, cut, tenant, after, job))


def event_after(model: Model, cut: Cut, tenant: Tenant, position: int, job: Job) -> tuple[int, str, str]:
    """The first event after a position that the model folds: its position, stream and type."""
    handled = None if model.handled is None else {kind.name for kind in model.handled}
    for batch in sampled(batches_of(model, cut, tenant, after=position, until=job.until), job.sample):
        envelope = batch.envelope
        for at, name in enumerate(envelope.type):
            if handled is None or name in handled:
                return envelope.position[at], envelope.stream[at], name
    return position, "", ""


def _shown(value: Any) -> str:
    """A value as text; a set in an order that is the same in every process."""
    return repr(sorted(value, key=repr)) if isinstance(value, (set, frozenset)) else repr(value)


def sampled(batches: Iterator[Batch], sample: int) -> Iterator[Batch]:
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


def _ended_as_child(out: TextIO, board: Board) -> None:
    json.dump(["forked", board.model, board.position], out)
    out.write("\n")
    out.flush()
    os._exit(0)


def main() -> None:
    """Read a job from stdin, write outcomes to what was standard output."""
    end_with_parent()
    raw = json.load(sys.stdin)
    raw["models"], raw["path"] = tuple(raw["models"]), tuple(raw["path"])
    raw["window"] = tuple(raw["window"]) if raw["window"] else None
    job = Job(**raw)
    if job.parent and os.getppid() != job.parent:  # it was gone before it could be waited for
        return
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with tempfile.TemporaryFile() as elsewhere:
        os.dup2(elsewhere.fileno(), 1)
    board = Board(job.board)
    said = Said(board)
    sys.stdout = said
    if not job.collector:
        gc.disable()
    # What a fold forks would go on with this work: it ends at once, and the parent hears of it.
    os.register_at_fork(after_in_child=partial(_ended_as_child, out, board))
    sys.path[:0] = [entry for entry in job.path if entry not in sys.path]
    try:
        run(job, out, board, said)
    except EventlabError as why:
        json.dump(["refused", type(why).__name__, why.message, why.hint], out)
    except BaseException as why:
        # Whatever it raises to end its process, and SystemExit above all.
        if not isinstance(why, SystemExit):
            raise
        json.dump(["exited", str(why)], out)
    out.flush()


if __name__ == "__main__":
    main()
