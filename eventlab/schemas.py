"""Stored schemas and the classes of today, held against each other before anything is deployed: check, dry run, differences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import polars as pl
import pyarrow as pa

from eventlab.errors import EventlabError, UnknownType, UpcastFailed
from eventlab.model.changes import Change, changes, json_schema, stored_schema
from eventlab.model.events import EVENTS, EventType, event_class
from eventlab.model.filters import Clause, Filter
from eventlab.model.schema import Schema
from eventlab.model.types import Leaf
from eventlab.model.upcasting import Unread, chain_of, payloads, step_missing, upcast_columns
from eventlab.store.base import ALL, Cut, Tenant
from eventlab.store.columns import stored_column
from eventlab.store.words import many

Kind = Literal["error", "question", "warning", "note"]
#: So many examples of what fails are shown of each version.
EXAMPLES: Final = 3
_DRY: Final[dict[str, Any]] = {
    "type": pl.String, "version": pl.Int64, "rows": pl.Int64, "failed": pl.Int64, "new_nulls": pl.Int64, "lost": pl.Int64,
    "position": pl.Int64, "example": pl.String,
}  # fmt: skip


class SchemaWarning(UserWarning):
    """A stored version that the classes of this process cannot read: the field, the version, and what to write."""


@dataclass(frozen=True)
class SchemaFinding:
    """Something that the stored schemas and the classes of today do not agree on; `hint` says what to write.

    An "error" cannot be read; a "question" can, and perhaps loses what was recorded; a "warning" may fail for some events.
    """

    kind: Kind
    type: str
    version: int
    said: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.type} version {self.version}: {self.said}{f' ({self.hint})' if self.hint else ''}"


#: One stored event of each of these versions of a type, as far as there are any: its position, and its columns of one value.
Sampler = Callable[[str, Collection[int]], Mapping[int, tuple[int, list[list[Any]]]]]


def check_schemas(
    stored: Iterable[Schema], kinds: Iterable[EventType] | None = None, sampler: Sampler | None = None
) -> list[SchemaFinding]:
    """What of the stored versions the classes of today cannot read, or would read otherwise than one may think.

    Looked at by their schemas, and by one event of each version that has upcasters where there is a `sampler`; what an
    upcaster does with every event is seen by `dry_run`.
    """
    known: dict[str, list[EventType]] = {}
    for kind in EVENTS.all() if kinds is None else kinds:
        known.setdefault(kind.name, []).append(kind)
    versions: dict[str, list[Schema]] = {}
    for schema in stored:
        versions.setdefault(schema.name, []).append(schema)
    found: list[SchemaFinding] = []
    for name, schemas in sorted(versions.items()):
        here = known.get(name, [])
        here = [kind for kind in here if kind.version == max(of.version for of in here)]
        if len(here) != 1:
            last, classes = max(schema.version for schema in schemas), f"{len(here)} classes are stored under that name"
            found.append(
                SchemaFinding("error", name, last, classes, "give one of them name=…")
                if here
                else SchemaFinding("note", name, last, "no class here has that name", "its events are read as plain values")
            )
            continue
        found += _of_type(here[0], {schema.version: schema for schema in schemas}, sampler)
    return found


def _of_type(kind: EventType, stored: Mapping[int, Schema], sampler: Sampler | None) -> Iterator[SchemaFinding]:
    cls = kind.cls.__name__
    newest = max(stored)
    if newest > kind.version:
        yield SchemaFinding("error", kind.name, newest, f"is stored, and {cls} is version {kind.version} here",
                            "this code is older than the store: deploy the newer one")  # fmt: skip
    upcast = [version for version, schema in stored.items() if version < kind.version and chain_of(kind, schema)]
    samples = sampler(kind.name, upcast) if sampler is not None and upcast else {}
    for version, schema in sorted(stored.items()):
        if version > kind.version:
            continue
        if version == kind.version:
            if schema.fingerprint != kind.schema.fingerprint:
                yield SchemaFinding("error", kind.name, version, f"differs from {cls}: {schema.difference(kind.schema)}",
                                    f"a change of fields is @el.event(version={version + 1})")  # fmt: skip
        elif version not in upcast:
            yield from _weak(kind, schema, stored)
        elif version in samples:
            yield from _upcast_one(kind, schema, stored, *samples[version])
        else:
            yield from _before_a_step(kind, schema, stored)
    for version in sorted(kind.upcasters):
        if version not in stored:
            yield SchemaFinding("note", kind.name, version, "is upcast, and no event of it is stored here")


def _upcast_one(
    kind: EventType, schema: Schema, stored: Mapping[int, Schema], position: int, columns: list[list[Any]]
) -> Iterator[SchemaFinding]:
    """A version that steps lead from, by what they make of one of its events."""
    try:
        kind.decode(schema, columns or [[None]])
    except UpcastFailed as why:
        gaps, likely = why.facts["gaps"], why.facts["missing"]
        # Between two versions that are known one sees whether defaults are all that was needed.
        missing = [v for v in gaps if _more_than_defaults(kind, stored, v)]
        missing = missing or [v for v in likely if _more_than_defaults(kind, stored, v) is not False] or list(likely)
        hint = step_missing(kind, missing) if missing else why.hint
        said = f"the event at position {position:,} fails {why.facts['said']}"
        yield SchemaFinding("error", kind.name, schema.version, said, hint)
    except Exception as why:
        said, hint = (why.message, why.hint) if isinstance(why, EventlabError) else (f"{type(why).__name__}: {why}", "")
        said = f"the event at position {position:,} cannot be read: {said}"
        yield SchemaFinding("error", kind.name, schema.version, said, hint)


def _more_than_defaults(kind: EventType, stored: Mapping[int, Schema], version: int) -> bool | None:
    """Whether a version's successor did more than add fields; None where one of the two is not known."""
    after = kind.schema if version + 1 == kind.version else stored.get(version + 1)
    if version not in stored or after is None:
        return None
    new = set(after.fields) - set(stored[version].fields)
    required = version + 1 == kind.version and any(not kind.has_default(name) for name in new)
    return required or not set(stored[version].columns) <= set(after.columns)


def _before_a_step(kind: EventType, schema: Schema, stored: Mapping[int, Schema]) -> Iterator[SchemaFinding]:
    """A version that steps lead from, where there is no event to see what they make of it."""
    first = chain_of(kind, schema)[0].version
    between = stored.get(first)
    missing = sorted(set(between.fields) - set(schema.fields)) if first > schema.version and between is not None else []
    if missing:
        yield SchemaFinding(
            "warning", kind.name, schema.version,
            f"has no {', '.join(missing)}, which the step from version {first} may look for",
            f"@el.upcast({kind.cls.__name__}, from_version={schema.version})",
        )  # fmt: skip


def _weak(kind: EventType, schema: Schema, stored: Mapping[int, Schema]) -> Iterator[SchemaFinding]:
    """A version that is read by its fields and their defaults."""
    try:
        kind.decode(schema, [[] for _ in schema.columns] or [[]])
    except EventlabError as why:
        yield SchemaFinding("error", kind.name, schema.version, why.message, why.hint)
        return
    cls, today = kind.cls.__name__, [name for name, _ in kind.fields]
    new = [name for name in today if name not in schema.fields]
    for name in (name for name in schema.fields if name not in today):
        tags = _tags(schema.leaves, name)
        same = [to for to in new if _tags(kind.leaves, to) == tags]
        if same:
            last = max(v for v, of in stored.items() if v < kind.version and name in of.fields)
            to = " or ".join(same)
            yield SchemaFinding(
                "question", kind.name, schema.version,
                f"was {name} renamed to {to}? {name} is gone, and {to} of the same form came with a default, which is read now "
                f"in place of each stored {name}",
                f"if so, @el.upcast({cls}, from_version={last}) gives {same[0]}=old.{name}; if not, leave it",
            )  # fmt: skip
        else:
            yield SchemaFinding("note", kind.name, schema.version, f"{name} is stored, and no field of {cls} today")


def _tags(leaves: Iterable[Leaf], name: str) -> list[str]:
    return [leaf.tag for leaf in leaves if leaf.path.partition(".")[0] == name]


def sampler_of(cut: Cut, tenant: Tenant) -> Sampler:
    """Takes the first stored event of a version; of a type no more is read than up to the last of them."""

    def sample(name: str, versions: Collection[int]) -> dict[int, tuple[int, list[list[Any]]]]:
        here = {v for (of, _), keys in cut.types_of.items() if tenant in (ALL, of) for type_, v in keys if type_ == name}
        wanted = here & set(versions)
        found: dict[int, tuple[int, list[list[Any]]]] = {}
        for table in _tables(cut, tenant, name) if wanted else ():
            at = table.column("schema_version").to_pylist()
            for version in [v for v in wanted if v in at]:
                one = table.slice(at.index(version), 1)
                columns = [stored_column(one, column) for column in cut.schemas[name, version].columns]
                found[version] = one.column("position")[0].as_py(), columns
                wanted.discard(version)
            if not wanted:
                break
        return found

    return sample


def _tables(cut: Cut, tenant: Tenant, name: str, advance: Any = None) -> Iterator[pa.Table]:
    """The events of a type, a bounded number at a time."""
    picked = Filter((Clause(types=frozenset((name,))),))
    for batch in cut.batches(picked, tenant=tenant, envelope=("position", "type", "schema_version"), types=(name,)):
        yield from batch.tables
        if advance is not None:
            advance(len(batch))


def warnings_of(stored: Iterable[Schema]) -> list[str]:
    """What of the stored versions cannot be read here, in words, by their schemas alone."""
    broken = [finding for finding in check_schemas(stored) if finding.kind == "error"]
    return [f"{of.type} version {of.version} does not fit the code here: {of.said} ({of.hint})" for of in broken]


def differences(name: str, stored: Mapping[tuple[str, int], Schema], old: int | None, new: int | None) -> list[Change]:
    """What is different between two versions of a type; without `new` the class of today, without `old` the one before it."""
    versions = sorted(version for of, version in stored if of == name)
    kind = event_class(name) if EVENTS.named(name) else None
    if not versions and kind is None:
        known = ", ".join(sorted({of for of, _ in stored})) or "none"
        raise UnknownType(f"no event type is called {name!r}", hint=f"there are: {known}")
    last = new if new is not None else kind.version if kind is not None else versions[-1]
    first = old if old is not None else max((v for v in versions if v < last), default=last)
    before = _version(stored, name, first)
    left_out = _left_out(before, kind)
    if new is None and kind is not None:
        return changes(stored_schema(before, left_out), json_schema(kind))
    after = _version(stored, name, last)
    # Of a version that nobody remembers the defaults of, nothing is said that it may not have changed.
    left_out_after = _left_out(after, kind)
    return changes(stored_schema(before, left_out), stored_schema(after, left_out if left_out_after is None else left_out_after))


def _left_out(schema: Schema, kind: EventType | None) -> list[str] | None:
    """The fields of a version that may be left out: as its class says, or the store, or a later class; None is not known."""
    if kind is not None and (kind.version == schema.version or (schema.defaults is None and kind.version > schema.version)):
        return [name for name in schema.fields if name in dict(kind.fields) and kind.has_default(name)]
    return None if schema.defaults is None else list(schema.defaults)


def _version(stored: Mapping[tuple[str, int], Schema], name: str, version: int) -> Schema:
    if (name, version) not in stored:
        known = ", ".join(str(v) for of, v in sorted(stored) if of == name) or "none"
        raise UnknownType(f"version {version} of {name} is not in the store", hint=f"there are: {known}")
    return stored[name, version]


def dry_run(cut: Cut, tenant: Tenant, advance: Any = None, only: Sequence[str] = ()) -> pl.DataFrame:
    """Every stored event brought to the class of today, and thrown away: what fails, what is null now that was not, what is lost.

    A row for each type and version that has a class here: rows, how many failed, how many values are newly null, and how many
    are lost; and a row for each of a few examples of what failed, and for each field that is newly null or lost, with the
    position of one. Lost is a value that no field of today has the name of, or that no step looks at.
    """
    rows: list[tuple[Any, ...]] = []
    for name, version in sorted(set().union(*cut.types_of.values()) if cut.types_of else ()):
        kind = event_class(name) if EVENTS.named(name) else None
        if kind is None or (only and name not in only):
            continue
        seen = _Seen(kind, cut.schemas[name, version])
        for table in _tables(cut, tenant, name, advance):
            at = [i for i, of in enumerate(table.column("schema_version").to_pylist()) if of == version]
            part = table.take(at)
            if len(part):
                columns = [stored_column(part, column) for column in seen.schema.columns]
                seen.take(columns, part.column("position").to_pylist())
        rows += seen.rows()
    return pl.DataFrame(rows, schema=_DRY, orient="row")


@dataclass
class _Changed:
    """What became of one field: of how many events, and one of them."""

    position: int
    value: Any
    count: int = 0


class _Seen:
    """What a dry run has seen of one version of a type."""

    def __init__(self, kind: EventType, schema: Schema) -> None:
        self.kind, self.schema = kind, schema
        self.count = self.failed = 0
        self.examples: list[tuple[int, str]] = []
        self.nulls: dict[str, _Changed] = {}
        #: By field, and the version whose step does not look at it; 0 where there is no step.
        self.lost: dict[Unread, _Changed] = {}
        self._steps = chain_of(kind, schema) if schema.version < kind.version else ()
        today = {name for name, _ in kind.fields}
        self._gone = [] if self._steps else [name for name in schema.fields if name not in today]
        self._kept = [name for name in schema.fields if name in today]

    def take(self, columns: list[list[Any]], positions: Sequence[int]) -> None:
        """Bring a part of the events to the class of today."""
        made, unread = self._made(columns, positions)
        before = payloads(self.schema, columns, len(made))
        for old, event, passed, position in zip(before, made, unread, positions, strict=True):
            self.count += 1
            if event is None:
                self.failed += 1
                continue
            for name in self._kept:
                if old[name] is not None and getattr(event, name) is None:
                    self.nulls.setdefault(name, _Changed(position, old[name])).count += 1
            for name in self._gone:
                if old[name] is not None:
                    self.lost.setdefault((name, 0), _Changed(position, old[name])).count += 1
            for one in passed:
                # What is newly null is told as that.
                if getattr(event, one[0], old) is not None:
                    self.lost.setdefault(one, _Changed(position, old[one[0]])).count += 1

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows of the frame."""
        name, version = self.schema.key
        nulls, lost = (sum(of.count for of in found.values()) for found in (self.nulls, self.lost))
        yield name, version, self.count, self.failed, nulls, lost, None, None
        told = list(self.examples)
        told += [(of.position, f"{field} is newly None in {many(of.count, 'event')}: here it was {of.value!r:.60}")
                 for field, of in self.nulls.items()]  # fmt: skip
        for (field, step), of in self.lost.items():
            cls = self.kind.cls.__name__
            why = f"the step from version {step} does not look at it" if step else f"{cls} has no such field today"
            told.append((of.position, f"{field} is lost in {many(of.count, 'event')}: here it was {of.value!r:.60}, and {why}"))
        for position, said in told:
            yield name, version, None, None, None, None, position, said

    def _made(self, columns: list[list[Any]], positions: Sequence[int]) -> tuple[list[Any], list[list[Unread]]]:
        """The events of a part, None where one fails; and what no step looks at of each."""
        with contextlib.suppress(Exception):
            return self._decoded(columns, len(positions))
        made: list[Any] = []
        unread: list[list[Unread]] = []
        for i, position in enumerate(positions):
            try:
                one, passed = self._decoded([[column[i]] for column in columns], 1)
            except Exception as why:
                one, passed = [None], [[]]
                if len(self.examples) < EXAMPLES:
                    said = why.message if isinstance(why, EventlabError) else f"{type(why).__name__}: {why}"
                    self.examples.append((position, said))
            made += one
            unread += passed
        return made, unread

    def _decoded(self, columns: list[list[Any]], count: int) -> tuple[list[Any], list[list[Unread]]]:
        if not self._steps:
            return self.kind.decode(self.schema, columns or [[None] * count]), [[] for _ in range(count)]
        unread: list[list[Unread]] = []
        made = upcast_columns(self.kind, self.schema, columns, count, unread)
        return self.kind.decode(self.kind.schema, made or [[None] * count]), unread
