"""Filters pick exactly the events that a plain reading of `&` and `|` picks, in memory and on disk."""

from __future__ import annotations

import enum
import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidName, ModelError, UnknownType
from eventlab.model.filters import EVERYTHING, Filter


@el.event
class LotOffered:
    """Someone offered a lot at an auction."""

    lot: el.Tag[int]
    house: el.Tag[str]


@el.event
class LotWithdrawn:
    """The lot is not for sale any more."""


@el.event(name="auction.LotSold")
class LotSold:
    """The hammer fell."""

    to: str


@el.aggregate
class AuctionLot:
    sold: bool = False

    def evolve(self, event: LotSold) -> AuctionLot:
        return AuctionLot(True)


@el.projection
class LotsByHouse:
    lots: int = 0

    @staticmethod
    def key(event: LotOffered) -> str:
        return event.house

    def evolve(self, event: LotOffered) -> LotsByHouse:
        return LotsByHouse(self.lots + 1)


TYPES = {"LotOffered": LotOffered, "LotWithdrawn": LotWithdrawn, "auction.LotSold": LotSold}
STREAMS = ("auction_lot-1", "auction_lot-1-1", "auction_lot-2", "house-1", "house-auction_lot")
TAGS = ("vip", "lot:1", "lot:2", "house:N", "house:it's")

#: A filter beside what it means: whether it picks an event of this type, stream and tags.
Told = tuple[Filter, Callable[[str, str, set[str]], bool]]


@dataclass(frozen=True)
class Happened:
    type: str
    stream: str
    tags: frozenset[str]


def leaves() -> Iterator[Told]:
    for names in (["LotOffered"], ["auction.LotSold"], ["LotOffered", "LotWithdrawn"]):
        yield el.events(*names), lambda type, stream, tags, names=names: type in names
        yield el.events(*(TYPES[name] for name in names)), lambda type, stream, tags, names=names: type in names
    yield el.events(), lambda type, stream, tags: True
    for names in (["house-1"], ["auction_lot-1", "house-auction_lot"], ["auction_lot-1-1"], ["house-none"]):
        yield el.stream(*names), lambda type, stream, tags, names=names: stream in names
    yield el.category("house"), lambda type, stream, tags: stream.startswith("house-")
    yield el.category(AuctionLot), lambda type, stream, tags: stream.startswith("auction_lot-")
    yield el.category("house", "auction_lot"), lambda type, stream, tags: True
    yield el.category("nowhere"), lambda type, stream, tags: False
    yield el.tag("vip"), lambda type, stream, tags: "vip" in tags
    yield el.tag(lot=1), lambda type, stream, tags: "lot:1" in tags
    yield el.tag("vip", house="it's"), lambda type, stream, tags: {"vip", "house:it's"} <= tags


def combined(inner: st.SearchStrategy[Told]) -> st.SearchStrategy[Told]:
    def both(pair: tuple[Told, Told]) -> Told:
        (one, says), (other, tells) = pair
        return one & other, lambda *event: says(*event) and tells(*event)

    def either(pair: tuple[Told, Told]) -> Told:
        (one, says), (other, tells) = pair
        return one | other, lambda *event: says(*event) or tells(*event)

    return st.tuples(inner, inner).map(both) | st.tuples(inner, inner).map(either)


TOLD = st.recursive(st.sampled_from(list(leaves())), combined, max_leaves=6)
HAPPENED = st.builds(
    Happened, st.sampled_from(sorted(TYPES)), st.sampled_from(STREAMS), st.frozensets(st.sampled_from(TAGS), max_size=3)
)


@given(TOLD, st.lists(HAPPENED, max_size=8))
def test_a_filter_means_what_it_says(told: Told, log: list[Happened]):
    filter, means = told
    for event in log:
        picked = filter.matches(event.type, event.stream, event.tags)
        assert picked == means(event.type, event.stream, set(event.tags)), str(filter)
        if picked:
            # What a scan may leave unread holds no match.
            assert filter.categories is None or event.stream.partition("-")[0] in filter.categories
            assert filter.streams is None or event.stream in filter.streams


def write(lab: el.Lab) -> None:
    """Sixty events in which every type meets every stream and many tags."""
    for i in range(60):
        event: Any = (LotOffered(i % 3, "N" if i % 2 else "it's"), LotWithdrawn(), LotSold("ann"))[i % 3]
        tags = (["vip"] if i % 4 == 0 else []) + (["lot:1"] if i % 7 == 0 else [])
        lab.append(STREAMS[i % 5], [el.new(event, tags=tags)])
        if i == 40:
            lab.seal()


@pytest.fixture(scope="module", params=["scratch", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[el.Lab]:
    """A log in memory, or one on disk of which two thirds are sealed."""
    with el.scratch() if request.param == "scratch" else el.open(tmp_path_factory.mktemp("filters") / "log") as lab:
        write(lab)
        yield lab


@given(TOLD, st.integers(0, 60), st.integers(0, 70))
@settings(max_examples=40)
def test_a_read_gives_the_events_its_filter_picks_in_order(lab: el.Lab, told: Told, after: int, until: int):
    filter, means = told
    wanted = [r.position for r in lab.read(after=after, until=until) if means(r.type, r.stream, set(r.tags))]
    assert [r.position for r in lab.read(filter, after=after, until=until)] == wanted, str(filter)
    assert len(lab.read(filter, after=after, until=until)) == len(wanted)


@given(TOLD, TOLD, TOLD)
def test_and_and_or_are_an_algebra(a: Told, b: Told, c: Told):
    one, two, three = a[0], b[0], c[0]
    tags = [set(), {"vip"}, {"vip", "lot:1", "house:it's"}]
    events = list(itertools.product(TYPES, STREAMS, tags))

    def same(left: Filter, right: Filter) -> bool:
        return all(left.matches(*event) == right.matches(*event) for event in events)

    assert same(one & two, two & one)
    assert same(one | two, two | one)
    assert same(one & (two & three), (one & two) & three)
    assert same(one | (two | three), (one | two) | three)
    assert same(one & (two | three), (one & two) | (one & three))
    assert same(one & one, one)
    assert same(one | one, one)
    assert one & EVERYTHING == EVERYTHING & one == Filter(tuple(dict.fromkeys(one.clauses)))
    assert same(one | EVERYTHING, EVERYTHING)


def test_a_filter_is_a_value():
    assert el.events(LotOffered) == el.events("LotOffered")
    assert el.tag(lot=1) == el.tag("lot:1")
    assert {el.stream("house-1", "house-2"), el.stream("house-2", "house-1")} == {el.stream("house-1", "house-2")}
    assert str(el.events(LotOffered, LotSold) & el.tag("vip") | el.category(AuctionLot)) == (
        "events(LotOffered, auction.LotSold) & tag(vip) | category(auction_lot)"
    )
    assert str(el.events()) == "everything"
    assert str(el.events(LotOffered) & el.stream("house-1") & el.stream("house-2")) == "events(LotOffered) & stream()"


def test_a_tag_is_the_text_that_a_tag_field_has():
    class Size(enum.StrEnum):
        SMALL = "s"

    who = uuid.uuid4()
    assert str(el.tag(by=who, size=Size.SMALL, lot=3)) == f"tag(by:{who}) & tag(lot:3) & tag(size:s)"


def test_what_is_no_filter_cannot_be_combined_with_one_or_read():
    for wrong in ("vip", None, LotOffered, {"type": "LotOffered"}):
        with pytest.raises(TypeError):
            el.events(LotOffered) & wrong  # type: ignore[operator]
        with pytest.raises(TypeError):
            el.events(LotOffered) | wrong  # type: ignore[operator]
        with el.scratch() as lab, pytest.raises(UnknownType, match="is no filter"):
            lab.read(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: el.events("Lot Offered"), InvalidName),
        (lambda: el.events(LotOffered(1, "N")), UnknownType),
        (lambda: el.events(str), ModelError),
        (lambda: el.tag(), InvalidName),
        (lambda: el.tag(""), InvalidName),
        (lambda: el.tag("a\nb"), InvalidName),
        (lambda: el.stream("house"), InvalidName),
        (lambda: el.category("House"), InvalidName),
        (lambda: el.category(LotsByHouse), InvalidName),
        (lambda: el.category(LotOffered), ModelError),
    ],
)
def test_a_misspelled_filter_is_refused_where_it_is_made(make: Callable[[], Filter], error: type[Exception]):
    with pytest.raises(error):
        make()


def test_a_type_that_is_neither_stored_nor_defined_is_refused_and_the_nearest_are_named(lab: el.Lab):
    with pytest.raises(UnknownType, match="did you mean LotOffered") as refused:
        lab.read(el.events("LotOfered"))
    assert refused.value.type == "LotOfered"


def test_a_type_that_is_defined_and_not_stored_yet_picks_nothing():
    with el.scratch() as lab:
        assert list(lab.read(el.events(LotSold))) == []
