"""An event with a field of every kind, how it is made up at random, and the frames that somebody else would have of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

import polars as pl
from hypothesis import strategies as st

import eventlab as el
from eventlab.model.events import event_type
from eventlab.store.base import pack


class Priority(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 3


@dataclass(frozen=True)
class Place:
    city: str
    floor: int | None


@dataclass(frozen=True)
class Sender:
    name: str
    place: Place | None
    since: dt.date
    rating: float


@el.event
class ParcelDescribed:
    """Somebody said all there is to say about a parcel."""

    number: int
    weight: float
    reading: el.AnyFloat
    fragile: bool
    note: str
    remark: str | None
    label: el.Tag[str]
    count: el.Tag[int | None]
    insured: el.Tag[bool]
    owner: el.Tag[uuid.UUID | None]
    priority: Priority
    size: Size | None
    mode: Literal["air", "sea"]
    raw: bytes
    price: el.Money
    exact: el.ExactDecimal | None
    rate: Decimal
    share: Annotated[Decimal, el.Scale(38, 38)]
    at: dt.datetime
    day: dt.date | None
    clock: dt.time
    took: dt.timedelta
    parts: list[int]
    names: frozenset[str]
    ratios: tuple[float, ...]
    prices: list[el.Money]
    moments: list[dt.datetime | None]
    amounts: dict[str, int]
    days: dict[str, list[dt.date]]
    sender: Sender
    reply_to: Sender | None
    stops: list[Place]
    anything: Any
    choice: int | str


# -- made up ---------------------------------------------------------------------------------------------------------------

MICROSECOND = dt.timedelta(microseconds=1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
labels = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32)), "\x7f"]), max_size=8)
whole = st.integers(-(2**63), 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(timezones=st.just(dt.UTC))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


def scaled(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    """Every decimal of so many digits and places."""
    limit = 10**digits - 1
    return st.integers(-limit, limit).map(lambda count: Decimal((int(count < 0), tuple(map(int, str(abs(count)))), -places)))


places = st.builds(Place, texts, st.none() | whole)
senders = st.builds(Sender, texts, st.none() | places, st.dates(), finite)


def parcels(readings: st.SearchStrategy[float] = st.floats()) -> st.SearchStrategy[ParcelDescribed]:  # noqa: B008
    """Parcels of every description."""
    return st.builds(
        ParcelDescribed,
        number=whole,
        weight=finite,
        reading=readings,
        fragile=st.booleans(),
        note=texts,
        remark=st.none() | texts,
        label=labels,
        count=st.none() | whole,
        insured=st.booleans(),
        owner=st.none() | st.uuids(),
        priority=st.sampled_from(Priority),
        size=st.none() | st.sampled_from(Size),
        mode=st.sampled_from(["air", "sea"]),
        raw=st.binary(max_size=8),
        price=scaled(18, 2),
        exact=st.none() | st.decimals(allow_nan=False, allow_infinity=False),
        rate=scaled(38, 9),
        share=scaled(38, 38),
        at=moments,
        day=st.none() | st.dates(),
        clock=st.times(),
        took=whole.map(lambda count: count * MICROSECOND),
        parts=st.lists(whole, max_size=3),
        names=st.frozensets(texts, max_size=3),
        ratios=st.lists(finite, max_size=3).map(tuple),
        prices=st.lists(scaled(18, 2), max_size=3),
        moments=st.lists(st.none() | moments, max_size=3),
        amounts=st.dictionaries(texts, whole, max_size=3),
        days=st.dictionaries(texts, st.lists(st.dates(), max_size=2), max_size=2),
        sender=senders,
        reply_to=st.none() | senders,
        stops=st.lists(places, max_size=3),
        anything=json_values,
        choice=whole | texts,
    )


# -- as others have it -----------------------------------------------------------------------------------------------------

_PLACE = pl.Struct({"city": pl.String, "floor": pl.Int64})
_SENDER = pl.Struct({"name": pl.String, "place": _PLACE, "since": pl.Date, "rating": pl.Float64})
_INSTANT = pl.Datetime("us", "UTC")
TYPES: dict[str, Any] = {
    "number": pl.Int64, "weight": pl.Float64, "reading": pl.Float64, "fragile": pl.Boolean, "note": pl.String,
    "remark": pl.String, "label": pl.String, "count": pl.Int64, "insured": pl.Boolean, "owner": pl.String,
    "priority": pl.String, "size": pl.Int64, "mode": pl.String, "raw": pl.Binary, "price": pl.Decimal(18, 2),
    "exact": pl.String, "rate": pl.Decimal(38, 9), "share": pl.Decimal(38, 38), "at": _INSTANT, "day": pl.Date,
    "clock": pl.Time, "took": pl.Duration("us"), "parts": pl.List(pl.Int64), "names": pl.List(pl.String),
    "ratios": pl.List(pl.Float64), "prices": pl.List(pl.Decimal(18, 2)), "moments": pl.List(_INSTANT),
    "amounts": pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})),
    "days": pl.List(pl.Struct({"key": pl.String, "value": pl.List(pl.Date)})),
    "sender": _SENDER, "reply_to": _SENDER, "stops": pl.List(_PLACE), "anything": pl.String, "choice": pl.String,
}  # fmt: skip


def frame_of(parcels: Sequence[ParcelDescribed], **columns: Sequence[Any]) -> pl.DataFrame:
    """The frame that a program without eventlab would have of these, and more columns beside."""
    plain = {name: [_plain(name, getattr(parcel, name)) for parcel in parcels] for name in TYPES}
    frame = pl.DataFrame([pl.Series(name, values, dtype=TYPES[name], strict=True) for name, values in plain.items()])
    return frame.with_columns(pl.Series(name, values) for name, values in columns.items())


def _plain(name: str, value: Any) -> Any:
    """A value without eventlab's types: JSON where the field takes any, text where Polars has no type for it."""
    if name in ("anything", "choice"):
        return json.dumps(value)
    if isinstance(value, uuid.UUID) or (name == "exact" and value is not None):
        return str(value)
    return _without_classes(value)


def _without_classes(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {field.name: _without_classes(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return [{"key": key, "value": _without_classes(item)} for key, item in value.items()]
    if isinstance(value, (list, tuple, frozenset)):
        return [_without_classes(item) for item in value]
    return value


def told(events: Iterable[Any]) -> list[tuple[Any, ...]]:
    """What recorded events say, bit by bit, and where: NaN is NaN, 1 is not 1.0 and True is neither."""
    return [(e.position, e.stream, e.version, e.type, e.tags, pack(event_type(type(e.data)).encode(e.data))) for e in events]
