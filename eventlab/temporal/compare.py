"""Two definitions of a model folded over the same log: where their states part, and the first event after which they do."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import polars as pl
import pyarrow as pa

from eventlab.errors import EvolveFailed, InvalidValue, UnknownType, Unsupported
from eventlab.model.models import MODELS, Model
from eventlab.model.types import back_of, record_parts
from eventlab.replay.lift import fold_versions
from eventlab.replay.tables import columns_of, key_names, shown
from eventlab.store.base import Cut, Tenant
from eventlab.store.columns import codec
from eventlab.store.words import many
from eventlab.temporal.versions import envelope_of

#: Rows in the listing, unless more are asked for.
LIMIT: Final = 1_000
_PLAIN: Final = (Decimal, dt.date, dt.time, dt.timedelta, uuid.UUID)


@dataclass(frozen=True)
class FieldCompared:
    """A field of both definitions: for how many keys it parts, for how many it differs at the end, the first position."""

    field: str
    parting: int = 0
    still: int = 0
    position: int = 0

    def __str__(self) -> str:
        if not self.parting:
            return "the same"
        end = "it differs at the end" if self.still == self.parting == 1 else f"{self.still:,} still at the end"
        return f"parts in {many(self.parting, 'key')}, first at position {self.position:,}; {end}"


@dataclass(frozen=True)
class Retyped:
    """A field that both have, stored in different types: its values are not compared."""

    field: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"was {self.old}, is {self.new}: not compared"


@dataclass(frozen=True)
class Comparison:
    """Where the states of two definitions part, from the first event to `position`.

    A key parts when any field has another value after any of its events, as folded by one or the other; before its first
    event a key is in the initial state, as everywhere. `frame` lists, by key and field, the first of those events and both
    values as text, the earliest first; `_version` is the key's, as in its table. `partings(name)` gives all of one field, with
    values of its own type. States may meet again: `still` of a field counts those that did not. `only_old` and `only_new` count
    the keys that only one has a row for.
    """

    model: str
    position: int
    events: int
    keys: int
    parting: int
    only_old: int
    only_new: int
    fields: tuple[FieldCompared, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: tuple[Retyped, ...]
    listed: int
    notes: tuple[str, ...]
    frame: pl.DataFrame = field(repr=False, compare=False)
    _partings: Mapping[str, pl.DataFrame] = field(repr=False, compare=False)

    @property
    def same(self) -> bool:
        """Whether no key parts in any field that was compared, and both have the same keys."""
        return not (self.parting or self.only_old or self.only_new)

    @property
    def first(self) -> dict[str, Any] | None:
        """The first row of the frame: the earliest event after which anything differs."""
        return self.frame.row(0, named=True) if len(self.frame) else None

    def partings(self, name: str) -> pl.DataFrame:
        """Every parting of one field: its key, `old` and `new` in the field's own type, and the event."""
        if name not in self._partings:
            known = ", ".join(f.field for f in self.fields)
            raise UnknownType(f"{name!r} was not compared", hint=f"compared were {known}" if known else "no field was compared")
        return self._partings[name]

    @property
    def verdict(self) -> str:
        """In one line: how many keys part, of how many."""
        over = f"over {many(self.events, 'event')}"
        if not self.parting:
            return f"{self.model}: no state of {many(self.keys, 'key')} parts {over}"
        verb = "parts" if self.parting == 1 else "part"
        first = min(f.position for f in self.fields if f.parting)
        return f"{self.model}: {self.parting:,} of {many(self.keys, 'key')} {verb} {over}, first at position {first:,}"

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What is to be said of each field, those that part first, and of the comparison as a whole."""
        told = [(f.field, str(f)) for f in sorted(self.fields, key=lambda f: (not f.parting, f.position))]
        rows = (("new", self.only_new), ("old", self.only_old))
        told += [("rows", f"{many(n, 'key')} only in the {which} definition") for which, n in rows if n]
        told += [(r.field, str(r)) for r in self.retyped]
        told += [(name, "only in the new definition") for name in self.added]
        told += [(name, "only in the old definition") for name in self.removed]
        return told + [("note", text) for text in self.notes]

    def __repr__(self) -> str:
        return f"Comparison({self.verdict})"

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.lines), default=0)
        return "\n".join([self.verdict, *(f"  {name:<{width}}  {text}" for name, text in self.lines)])


def pair(given: Model, other: Model | None) -> tuple[Model, Model]:
    """The old and the new definition: two that are given, or one and the definition before it.

    Of a class that was superseded the new one is the class in its place. Definitions that say the same as the one they are
    compared with, as after a cell was run again unchanged, are passed over, unless there is no other.
    """
    if other is not None:
        return given, other
    if given.stale:
        return given, MODELS.successor(given)
    earlier: list[Model] = MODELS.earlier(given)
    if not earlier:
        name = given.cls.__name__
        raise UnknownType(
            f"{name} was defined only once in this process, so there is nothing to compare it with",
            hint=f"change its evolve and run its cell again, or give both: lab.compare(Old, {name})",
        )
    return next((model for model in earlier if model.fingerprint != given.fingerprint), earlier[0]), given


def compare(
    old: Model, new: Model, cut: Cut, tenant: Tenant, until: int, *, engine: str = "auto", limit: int | None = LIMIT
) -> Comparison:
    """Fold both at every version and compare the states, column by column."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise InvalidValue(f"limit={limit!r} is no number of rows", hint="a whole number, or None for all")
    _refuse_unlike(old, new)
    fold = Fold(cut, tenant, until, engine)
    sides = fold.of(old, "old"), fold.of(new, "new")
    keys = key_names(new, tenant)
    rows = _matched(sides, keys)
    tags = [{name: kind.tag for name, kind in columns_of(model, tenant)} for model in (old, new)]
    common = [name for name, _ in new.fields if name in tags[0] and name not in keys]
    retyped = tuple(
        Retyped(name, dict(old.fields)[name].declared, dict(new.fields)[name].declared)
        for name in common
        if tags[0][name] != tags[1][name]
    )
    compared = [name for name in common if tags[0][name] == tags[1][name]]
    summaries, partings, parted = [], {}, pl.Series([], dtype=pl.UInt32)
    for name in compared:
        columns = [rows.column(side, i, name, of) for i, (side, of) in enumerate(zip(sides, (old, new), strict=True))]
        found = _parting(rows, tags[1][name], *columns)
        summaries.append(FieldCompared(name, len(found.rows), found.still, found.position))
        parted = pl.concat([parted, rows.frame["_key"].gather(found.rows).cast(pl.UInt32)])
        partings[name] = _listing(rows, {key: tags[1][key] for key in keys}, tags[1][name], sides, columns, found.rows)
    types = envelope_of(new, cut, tenant, until, ("type",)) if len(parted) else _NO_TYPES
    if old.category is None:
        types = pl.concat([types, envelope_of(old, cut, tenant, until, ("type",))]).unique() if len(parted) else types
    partings = {n: f.join(types, on="_position", how="left", maintain_order="left") for n, f in partings.items()}
    frame = _frame(partings, keys, limit)
    return Comparison(
        model=new.name,
        position=until,
        events=len(rows.frame),
        keys=rows.frame["_key"].n_unique(),
        parting=parted.n_unique(),
        only_old=rows.only(0),
        only_new=rows.only(1),
        fields=tuple(summaries),
        added=tuple(name for name, _ in new.fields if name not in dict(old.fields)),
        removed=tuple(name for name, _ in old.fields if name not in dict(new.fields)),
        retyped=retyped,
        listed=len(frame),
        notes=tuple(_notes(old, new, sides, frame, sum(f.parting for f in summaries))),
        frame=frame,
        _partings=partings,
    )


_NO_TYPES: Final = pl.DataFrame(schema={"_position": pl.Int64(), "_type": pl.String()})


def _notes(old: Model, new: Model, sides: Sequence[pl.DataFrame], frame: pl.DataFrame, partings: int) -> list[str]:
    found = []
    if len(sides[0]) != len(sides[1]):
        found.append(f"the old definition folds {many(len(sides[0]), 'event')}, the new one {len(sides[1]):,}")
    if old.fingerprint == new.fingerprint:
        found.append("both definitions have the same code, and reach the same")
    for which, model in (("old", old), ("new", new)):
        if model.stale and model.changed:
            names = ", ".join(model.changed)
            found.append(f"the {which} definition was folded with {names} of today, which changed since it was last folded")
    if len(frame) < partings:
        found.append(f"the frame lists {len(frame):,} of {partings:,} partings; limit=None lists all")
    return found


def _refuse_unlike(old: Model, new: Model) -> None:
    """Rows that share no key cannot be compared: other columns, or the streams of another category."""
    keys = [", ".join(f"{name}: {kind.declared}" for name, kind in model.key_fields) for model in (old, new)]
    if [(n, k.tag) for n, k in old.key_fields] != [(n, k.tag) for n, k in new.key_fields]:
        raise Unsupported(
            f"{old.cls.__name__} has a row for each ({keys[0]}) and {new.cls.__name__} for each ({keys[1]})",
            hint="only definitions with the same columns of the key have rows that can be compared",
        )
    if old.category is not None and new.category is not None and old.category != new.category:
        raise Unsupported(
            f"{old.cls.__name__} folds the streams of {old.category!r} and {new.cls.__name__} those of {new.category!r}",
            hint=f"decorate one of them with @el.aggregate(name={old.category!r}), so that both fold the same streams",
        )


@dataclass(frozen=True)
class Fold:
    """The versions of a definition, up to a position."""

    cut: Cut
    tenant: Tenant
    until: int
    engine: str

    def of(self, model: Model, which: str) -> pl.DataFrame:
        """They as a frame of stored values; an error says which of the two definitions raised."""
        try:
            table = fold_versions(model, self.cut, self.tenant, self.until, engine=self.engine)
        except EvolveFailed as why:
            hint = why.hint
            name = model.cls.__name__
            if model.stale and name in model.evolve.__code__.co_names:
                hint = f"{name} means the new class where the old evolve names it: write replace(self, …) in both"
            raise EvolveFailed(f"the {which} definition: {why.message}", hint=hint, **why.facts) from why
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame


# -- which row of one belongs to which of the other ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """The events of all keys in the order of key and position, with the row that each side is at after it.

    `frame` has `_key` (a number for each key), `_position`, `_version`; `at` the two row numbers, None before a side's
    first event of the key, and no row numbers at all where both fold the same events.
    """

    frame: pl.DataFrame
    at: tuple[pl.Series, pl.Series] | None

    def column(self, side: pl.DataFrame, number: int, name: str, model: Model) -> pl.Series:
        """A field of one side after every event: its initial value before the first that this side folds."""
        if self.at is None:
            return side[name]
        kind = dict(model.fields)[name]
        first = codec(kind.tag).to_array([kind.encode(getattr(model.initial, name), f"{model.cls.__name__}.{name}")])
        values = pl.concat([side[name], pl.Series(name, first, dtype=side.schema[name])])
        return values.gather(self.at[number].fill_null(len(side)))

    def key(self, sides: Sequence[pl.DataFrame], name: str) -> pl.Series:
        """A column of the key at every event."""
        if self.at is None:
            return sides[1][name]
        old, new = (side[name].gather(at) for side, at in zip(sides, self.at, strict=True))
        return new.zip_with(self.at[1].is_not_null(), old)

    def only(self, number: int) -> int:
        """How many keys only this side has a row for."""
        if self.at is None:
            return 0
        ends = self.frame["_key"].ne_missing(self.frame["_key"].shift(-1))
        return int((ends & self.at[number].is_not_null() & self.at[1 - number].is_null()).sum())


def _matched(sides: Sequence[pl.DataFrame], keys: Sequence[str]) -> _Rows:
    place = [*keys, "_position"]
    old, new = (side.select(*place, "_version") for side in sides)
    if old.select(place).equals(new.select(place), null_equal=True):
        return _Rows(_numbered(new, keys), None)
    both = old.with_columns(_old=pl.int_range(pl.len())).join(
        new.with_columns(_new=pl.int_range(pl.len())), on=place, how="full", coalesce=True, nulls_equal=True, suffix="_of_new"
    )
    both = both.sort(place, nulls_last=True)
    frame = _numbered(both.with_columns(_version=pl.coalesce("_version_of_new", "_version")), keys)
    at = both.select(pl.col("_old", "_new").forward_fill().over(frame["_key"]))
    return _Rows(frame, (at["_old"], at["_new"]))


def _numbered(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Key numbers for rows that are sorted by key; None is a key like any other."""
    another = pl.any_horizontal(*(pl.col(name).ne_missing(pl.col(name).shift()) for name in keys)) | (pl.int_range(pl.len()) == 0)
    return frame.select(_key=another.cast(pl.UInt32).cum_sum(), _position="_position", _version="_version")


# -- one field -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parting:
    rows: pl.Series
    still: int
    position: int


def _parting(rows: _Rows, tag: str, old: pl.Series, new: pl.Series) -> _Parting:
    """The first row of each key after whose event a field differs."""
    at = old.ne_missing(new).arg_true()
    if len(at) and _ambiguous(tag):
        same = _same_by_value(tag)
        values = [codec(tag).to_stored(_array(column.gather(at), tag)) for column in (old, new)]
        at = at.filter(pl.Series([not same(a, b) for a, b in zip(*values, strict=True)], dtype=pl.Boolean))
    key = rows.frame["_key"]
    mine = key.gather(at)
    first = at.filter(mine.ne_missing(mine.shift()))
    ends = (key.ne_missing(key.shift(-1))).arg_true()
    positions = rows.frame["_position"].gather(first)
    return _Parting(first, int(at.is_in(ends.implode()).sum()), int(positions.min() or 0))  # type: ignore[arg-type]


def _array(column: pl.Series, tag: str) -> pa.Array:
    found = column.to_arrow()
    return found if found.type == codec(tag).arrow else found.cast(codec(tag).arrow)


def _ambiguous(tag: str) -> bool:
    """Whether equal values may be stored in more than one way: mappings in any order, exact decimals with any exponent."""
    if tag.startswith("r("):
        return any(_ambiguous(of) for _, of in record_parts(tag))
    return tag.startswith("m_") or tag in ("dec", "json") or (tag.startswith("l_") and _ambiguous(tag[2:]))


def _same_by_value(tag: str) -> Callable[[Any, Any], bool]:
    """Whether two stored values are equal as Python compares them; NaN is the same as NaN."""
    back = back_of(tag)

    def same(old: Any, new: Any) -> bool:
        if old is None or new is None:
            return old is new
        return _same(back(old), back(new))

    return same


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(value, new[key]) for key, value in old.items())
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return len(old) == len(new) and all(map(_same, old, new))
    return type(old) is type(new) and bool(old == new or (old != old and new != new))


# -- what is shown ---------------------------------------------------------------------------------------------------------


def _listing(
    rows: _Rows, keys: Mapping[str, str], tag: str, sides: Sequence[pl.DataFrame], columns: Sequence[pl.Series], at: pl.Series
) -> pl.DataFrame:
    """The partings of one field: key, both values as a person reads them, and the place of the event."""
    found = [rows.key(sides, key).gather(at).alias(key) for key in keys]
    found += [column.gather(at).alias(name) for name, column in zip(_VALUES, columns, strict=True)]
    found += [rows.frame[name].gather(at) for name in ("_position", "_version")]
    return pl.DataFrame(found).with_columns(*shown({**keys, **dict.fromkeys(_VALUES, tag)}))


_VALUES: Final = ("old", "new")


def _frame(partings: Mapping[str, pl.DataFrame], keys: Sequence[str], limit: int | None) -> pl.DataFrame:
    """The partings of all fields, the earliest first; values as text, for they are of many types."""
    listed = []
    order = ["_position", *keys]
    for number, (name, found) in enumerate(partings.items()):
        found = found.sort(order, nulls_last=True, maintain_order=True)
        found = found if limit is None else found.head(limit)
        texts = [pl.Series(n, [_text(value) for value in found[n]], dtype=pl.String) for n in _VALUES]
        place = ("_position", "_version", "_type")
        listed.append(found.select(*keys, pl.lit(name).alias("field"), *texts, *place, pl.lit(number).alias("_field")))
    if not listed:
        kinds = {**dict.fromkeys(keys, pl.String()), "field": pl.String(), "old": pl.String(), "new": pl.String()}
        return pl.DataFrame(schema={**kinds, "_position": pl.Int64(), "_version": pl.Int64(), "_type": pl.String()})
    frame = pl.concat(listed).sort([*order, "_field"], nulls_last=True).drop("_field")
    return frame if limit is None else frame.head(limit)


def _text(value: Any) -> str | None:
    """A value as text; None stays None, so that it is not taken for the word."""
    return None if value is None else value if isinstance(value, str) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, pl.Series):
        value = value.to_list()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_plain(of)}' for key, of in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ").replace("+00:00", "Z")
    return str(value) if isinstance(value, _PLAIN) else repr(value)
