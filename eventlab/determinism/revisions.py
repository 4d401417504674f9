"""Old code against new code: the same log folded by two versions of a program, each in its own process.

The old one is a revision of the git repository around the models, a wheel, or a folder. Both tables are compared, and where
they differ, the states after each event of the keys that do: so each kind of change has the first event that is responsible.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from eventlab.determinism.check import importable, paths
from eventlab.determinism.variants import BASELINE
from eventlab.determinism.worker import Job, Outcome
from eventlab.determinism.workers import Workers
from eventlab.errors import InvalidValue, StoreError, UnknownType
from eventlab.model.models import Model
from eventlab.replay.tables import key_names
from eventlab.store.base import ALL, Cut, Tenant
from eventlab.store.words import many
from eventlab.temporal.versions import envelope_of

ADDED: Final = "_added"
REMOVED: Final = "_removed"
#: Rows in the listing of a difference.
LISTED: Final = 1_000


@dataclass(frozen=True)
class Accepted:
    """A change that is meant: of a field of a model (or `_added`, `_removed` for its keys), why, and until when it holds."""

    model: str
    field: str
    reason: str
    until: dt.date | None = None

    def holds(self, today: dt.date) -> bool:
        """Whether it has not expired."""
        return self.until is None or today <= self.until


@dataclass(frozen=True)
class Change:
    """One kind of change: how many keys, one of them with both values, the first event responsible, and whether it is meant."""

    model: str
    field: str
    keys: int
    key: str
    before: str | None
    after: str | None
    position: int
    stream: str
    event: str
    reason: str | None = None

    def __str__(self) -> str:
        what = {ADDED: "rows only the new code gives", REMOVED: "rows only the old code gives"}.get(self.field, self.field)
        values = "" if self.field in (ADDED, REMOVED) else f", {self.before} → {self.after}"
        first = f"; first at position {self.position:,} ({self.event} of {self.stream!r})" if self.position else ""
        meant = f"; accepted: {self.reason}" if self.reason is not None else ""
        return f"{what}: {many(self.keys, 'key')}, as {self.key}{values}{first}{meant}"


@dataclass(frozen=True)
class ReplayDiff:
    """What two versions of the code make of the same events; `frame` lists the first rows that differ, as text."""

    model: str
    base: str
    position: int
    keys: tuple[int, int]
    changes: tuple[Change, ...]
    #: Fields that only one of them has, and those whose type is another one: their values are not compared.
    fields: tuple[str, ...]
    frame: pl.DataFrame = field(repr=False, compare=False)

    @property
    def same(self) -> bool:
        """Whether both give the same rows, in the fields that both have."""
        return not self.changes

    @property
    def ok(self) -> bool:
        """Whether all that changes is accepted."""
        return all(change.reason is not None for change in self.changes)

    def __str__(self) -> str:
        if self.same:
            first = f"{self.model}: the same {many(self.keys[1], 'row')} as at {self.base}, over {many(self.position, 'event')}"
        else:
            kinds = many(len(self.changes), "kind")
            first = f"{self.model}: {kinds} of change since {self.base}, over {many(self.position, 'event')}"
        return "\n".join([first, *(f"  {change}" for change in self.changes), *(f"  {name}" for name in self.fields)])

    def __repr__(self) -> str:
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """It as plain values, without the listing."""
        return {
            "model": self.model, "base": self.base, "position": self.position, "keys": list(self.keys), "same": self.same,
            "ok": self.ok, "changes": [asdict(change) for change in self.changes], "fields": list(self.fields),
        }  # fmt: skip


def replay_diff(
    models: Sequence[Model], root: Path, cut: Cut, *, base: str, tenant: str | None, until: int,
    today: dt.date, accepted: Sequence[Accepted] = (),
) -> list[ReplayDiff]:  # fmt: skip
    """Fold models by the code of today and by that of `base`: a git revision, a wheel or a folder."""
    references = tuple(importable(model) for model in models)
    here = paths()
    with old_code(base, models[0]) as (repository, there), Workers() as workers, tempfile.TemporaryDirectory() as scratch:
        sides = []
        for name, path in (("old", _instead(here, repository, there)), ("new", here)):
            folder = Path(scratch) / name
            folder.mkdir()
            job = Job(str(root), tenant, references, until, path=path, kept=str(folder))
            sides.append(_Side(name, folder, job, workers))
        with ThreadPoolExecutor(len(sides)) as pool:
            list(pool.map(_Side.fold, sides))
        of: Tenant = ALL if tenant is None else tenant
        return [_compared(model, cut, of, until, sides, base, accepted, today) for model in models]


@contextlib.contextmanager
def old_code(base: str, model: Model) -> Iterator[tuple[Path | None, Path]]:
    """A folder with the code of a revision, a wheel or a folder; and the repository that it stands for, if it is a revision."""
    given = Path(base)
    if given.is_dir():
        yield None, given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="eventlab-base-") as folder:
        if given.suffix == ".whl":
            if not given.is_file():
                raise InvalidValue(f"there is no wheel {base}", hint="the path of a .whl file")
            with zipfile.ZipFile(given) as wheel:
                wheel.extractall(folder)
            yield None, Path(folder)
            return
        file = Path(sys.modules[model.cls.__module__].__file__ or ".").resolve()
        repository = Path(_git(file.parent, "rev-parse", "--show-toplevel", about=base).decode().strip()).resolve()
        named = _git(repository, "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}", about=base)
        revision = named.decode().strip()
        with tarfile.open(fileobj=io.BytesIO(_git(repository, "archive", "--format=tar", revision, about=base))) as archive:
            archive.extractall(folder, filter="data")
        yield repository, Path(folder)


def _git(folder: Path, *arguments: str, about: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except OSError as why:
        raise InvalidValue(f"git cannot be run: {why}", hint="install git, or give a wheel or a folder") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise InvalidValue(
            f"{about!r} is no wheel, no folder, and no git revision around {folder}: {said[-1] if said else 'git says no'}",
            hint="a tag, a branch or a commit, as HEAD~1; a .whl; a folder that holds the packages",
        )
    return done.stdout


def _instead(path: Sequence[str], repository: Path | None, there: Path) -> tuple[str, ...]:
    """The module path with the old code in the place of the repository; before all else where it stands for none."""
    if repository is None:
        return (str(there), *path)
    moved = []
    for entry in path:
        at = Path(entry)
        inside = at == repository or repository in at.parents
        moved.append(str(there / at.relative_to(repository)) if inside and not _installed(at) else entry)
    return tuple(moved)


def _installed(path: Path) -> bool:
    return "site-packages" in path.parts


@dataclass(frozen=True)
class _Side:
    """One of the two versions of the code, and where its process leaves tables."""

    name: str
    folder: Path
    job: Job
    workers: Workers

    def fold(self) -> dict[str, Outcome]:
        return self._run(self.job)

    def table(self, model: Model) -> pl.DataFrame:
        return _read(self.folder / f"{model.name}.arrow")

    def lives(self, model: Model, reference: str, keys: pl.DataFrame) -> pl.DataFrame:
        """The states after each event of these keys."""
        listed = self.folder / "keys.arrow"
        keys.write_ipc(listed)
        self._run(replace(self.job, models=(reference,), lives=str(listed)))
        return _read(self.folder / f"{model.name}.lives.arrow")

    def _run(self, job: Job) -> dict[str, Outcome]:
        done = self.workers.run(job, BASELINE)
        for stopped in done.stopped.values():
            raise StoreError(f"the {self.name} code came to no end: {stopped}", hint="eventlab check says more")
        for outcome in done.outcomes.values():
            if outcome.error is not None:
                raise StoreError(f"the {self.name} code cannot fold the log: {outcome.error}", hint="until= ends before that")
        return done.outcomes


def _read(path: Path) -> pl.DataFrame:
    with pa.memory_map(str(path)) as source:
        frame = pl.from_arrow(pa.ipc.open_file(source).read_all())
    assert isinstance(frame, pl.DataFrame)
    return frame


def _compared(
    model: Model, cut: Cut, tenant: Tenant, until: int, sides: Sequence[_Side], base: str, accepted: Sequence[Accepted],
    today: dt.date,
) -> ReplayDiff:  # fmt: skip
    old, new = (side.table(model) for side in sides)
    keys = list(key_names(model, tenant))
    if any(key not in old.columns for key in keys):
        raise StoreError(f"{model.name} has other keys at {base}: {', '.join(old.columns)}", hint="their rows cannot be compared")
    common = [name for name in new.columns if name in old.columns and name not in keys and not name.startswith("_")]
    compared = [name for name in common if old.schema[name] == new.schema[name]]
    told = [f"{name}: only in the new code" for name in new.columns if name not in old.columns]
    told += [f"{name}: only in the old code" for name in old.columns if name not in new.columns]
    told += [f"{n}: was {old.schema[n]}, is {new.schema[n]}; not compared" for n in common if n not in compared]
    joined = old.with_columns(_old=True).join(
        new.with_columns(_new=True), on=keys, how="full", coalesce=True, nulls_equal=True, suffix=":new"
    )
    rows = {REMOVED: joined.filter(pl.col("_new").is_null()), ADDED: joined.filter(pl.col("_old").is_null())}
    both = joined.filter(pl.col("_old") & pl.col("_new"))
    rows |= {name: both.filter(pl.col(name).ne_missing(pl.col(f"{name}:new"))) for name in compared}
    rows = {name: frame for name, frame in rows.items() if len(frame)}
    changed = pl.concat([frame.select(keys) for frame in rows.values()]).unique() if rows else joined.select(keys).clear()
    firsts = _firsts(model, sides, changed, keys, list(rows)) if rows else {}
    envelope = envelope_of(model, cut, tenant, until, ("type", "stream")) if rows else pl.DataFrame()
    meant = {of.field: of for of in accepted if of.model == model.name and of.holds(today)}
    changes = []
    for name, frame in rows.items():
        position = firsts.get(name, 0)
        at = envelope.filter(pl.col("_position") == position).row(0, named=True) if position else {}
        first = frame.sort(keys).row(0, named=True)
        before, after = (None, None) if name in (ADDED, REMOVED) else (str(first[name]), str(first[f"{name}:new"]))
        reason = meant[name].reason if name in meant else None
        key = ", ".join(str(first[k]) for k in keys)
        changes.append(
            Change(model.name, name, len(frame), key, before, after, position, at.get("_stream", ""), at.get("_type", ""), reason)
        )
    changes.sort(key=lambda change: (change.position, change.field))
    return ReplayDiff(
        model.name, base, until, (len(old), len(new)), tuple(changes), tuple(told), _listing(rows, keys)
    )


def _firsts(
    model: Model, sides: Sequence[_Side], changed: pl.DataFrame, keys: list[str], names: Sequence[str]
) -> dict[str, int]:
    """For each field the first position after which any of the keys that end differently differs in it."""
    reference = model.reference
    with ThreadPoolExecutor(len(sides)) as pool:
        old, new = pool.map(lambda side: side.lives(model, reference, changed), sides)
    points = pl.concat([old.select(*keys, "_position"), new.select(*keys, "_position")]).unique().sort("_position")
    # None is a key like any other, and a join as of a position knows none: each key gets a number.
    numbers = changed.with_row_index("_key")
    lives = [_numbered(frame, numbers, keys).with_columns(_there=True) for frame in (old, new)]
    at = _numbered(points, numbers, keys).select("_key", "_position").sort("_position")
    for suffix, frame in zip(("", ":new"), lives, strict=True):
        values = [name for name in frame.columns if name not in (*keys, "_key", "_position", "_version")]
        renamed = frame.select("_key", "_position", *(pl.col(name).alias(f"{name}{suffix}") for name in values))
        at = at.join_asof(renamed.sort("_position"), on="_position", by="_key", check_sortedness=False)
    found: dict[str, int] = {}
    for name in names:
        if name in (ADDED, REMOVED):
            parts = pl.col("_there").is_null() != pl.col("_there:new").is_null()
        else:
            parts = pl.col(name).ne_missing(pl.col(f"{name}:new")) & pl.col("_there") & pl.col("_there:new")
        first = at.filter(parts)["_position"].min()
        if isinstance(first, int):
            found[name] = first
    return found


def _numbered(frame: pl.DataFrame, numbers: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return frame.join(numbers, on=keys, how="inner", nulls_equal=True)


def _listing(rows: Mapping[str, pl.DataFrame], keys: list[str]) -> pl.DataFrame:
    """Key, field and both values as text, of the first rows."""
    found = []
    for name, frame in rows.items():
        values = [(None, None)] * len(frame) if name in (ADDED, REMOVED) else frame.select(name, f"{name}:new").rows()
        listed = frame.select(keys)[:LISTED].with_columns(pl.lit(name).alias("field"))
        texts = [[None if v is None else str(v) for v in of] for of in zip(*values[:LISTED], strict=True)]
        found.append(listed.with_columns(pl.Series("before", texts[0], pl.String), pl.Series("after", texts[1], pl.String)))
    return pl.concat(found).sort(*keys, "field")[:LISTED] if found else pl.DataFrame()


def accepted_in(path: Path) -> tuple[Accepted, ...]:
    """The changes that a file says are meant: `[[accepted]]` tables with model, field, reason and perhaps until."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as why:
        raise InvalidValue(f"{path} cannot be read: {why.strerror}", hint="a TOML file of [[accepted]] tables") from None
    except tomllib.TOMLDecodeError as why:
        raise InvalidValue(f"{path} is no TOML: {why}", hint="[[accepted]] tables with model, field and reason") from None
    found = []
    for number, one in enumerate(told.get("accepted", []), 1):
        of, name, reason, until = (one.get(part) for part in ("model", "field", "reason", "until"))
        if not (isinstance(of, str) and isinstance(name, str) and isinstance(reason, str) and reason.strip()):
            raise InvalidValue(f"{path}: entry {number} has no model, field and reason", hint="all are texts, and a must")
        if until is not None and not isinstance(until, dt.date):
            raise InvalidValue(f"{path}: until of entry {number} is {until!r}", hint="a date: until = 2027-01-31")
        found.append(Accepted(of, name, reason, until))
    unknown = set(told) - {"accepted"}
    if unknown:
        raise UnknownType(f"{path} has {', '.join(sorted(unknown))}", hint="only [[accepted]] tables are read")
    return tuple(found)
