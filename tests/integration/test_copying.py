"""Copies: the same events elsewhere, transformed on the way, gone on with after an interruption."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import IngestRefused, InvalidValue, ReadOnly
from eventlab.integration import copying


@el.event(name="copying.PageWritten")
class PageWritten:
    """A page was written."""

    words: int
    author: el.Tag[str] | None = None


@el.event(name="copying.PageTorn")
class PageTorn:
    """A page was torn out."""


@el.aggregate(name="book")
class Pages:
    words: int = 0
    torn: int = 0

    def evolve(self, event: PageWritten | PageTorn) -> Self:
        match event:
            case PageWritten(words=words):
                return replace(self, words=self.words + words)
            case PageTorn():
                return replace(self, torn=self.torn + 1)
        return self


@pytest.fixture(params=["memory", "disk"])
def labs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[el.Lab, el.Lab]]:
    if request.param == "memory":
        pair = el.scratch(seed=1), el.scratch(seed=2)
    else:
        pair = el.open(tmp_path / "from", maintain=False), el.open(tmp_path / "to", maintain=False)
    source, _ = pair
    with source.context(actor="ann"):
        source.append("book-1", [PageWritten(10, "ann"), PageTorn()], occurred_at="2020-01-01T00:00Z", tags=["draft"])
        source.append("book-2", [PageWritten(20)])
        source.append("note-1", [PageWritten(1)])
    yield pair
    for lab in pair:
        lab.close()


def told(lab: el.Lab) -> list[Any]:
    names = ("stream", "version", "data", "event_id", "recorded_at", "occurred_at", "actor", "tags", "correlation_id")
    return [[getattr(event, name) for name in names] for event in lab.read()]


def test_a_copy_is_the_same_log_elsewhere(labs: tuple[el.Lab, el.Lab]) -> None:
    source, to = labs
    before = told(source)
    done = source.copy(to)
    assert (done.events, done.written, done.dropped, done.position) == (4, 4, 0, 4)
    assert told(to) == before == told(source)
    assert to.table(Pages).equals(source.table(Pages))


def test_a_copy_goes_on_where_it_was(labs: tuple[el.Lab, el.Lab]) -> None:
    source, to = labs
    source.copy(to)
    assert source.copy(to).written == 0
    source.append("book-1", [PageWritten(5)])
    assert source.copy(to).written == 1
    assert told(to) == told(source)


def test_events_are_dropped_changed_moved_and_split_on_the_way(labs: tuple[el.Lab, el.Lab]) -> None:
    source, to = labs

    def transform(event: Any) -> Any:
        if isinstance(event.data, PageTorn):
            return None
        if event.category == "note":
            return "book-9", event.data
        if event.id == "2":
            return [PageWritten(8), el.new(PageWritten(12), tags=["half"])]
        return event

    done = source.copy(to, transform=transform)
    assert (done.events, done.written) == (4, 4)
    assert [(e.stream, e.version, e.data.words) for e in to.read()] == [
        ("book-1", 1, 10), ("book-2", 1, 8), ("book-2", 2, 12), ("book-9", 1, 1),
    ]  # fmt: skip
    ids = [event.event_id for event in source.read()]
    assert [event.event_id for event in to.read()][::3] == [ids[0], ids[3]]
    assert to.read().list()[2].tags == ("half",)
    assert to.read().list()[0].tags == ("author:ann", "draft")


def test_a_filter_picks_what_is_copied(labs: tuple[el.Lab, el.Lab]) -> None:
    source, to = labs
    assert source.copy(to, filter=el.category("book") & el.events(PageWritten)).written == 2
    assert source.copy(to, filter=el.category("note"), name="notes", recorded_at="now").written == 1
    assert [e.stream for e in to.read()] == ["book-1", "book-2", "note-1"]


def test_two_logs_are_merged(labs: tuple[el.Lab, el.Lab]) -> None:
    source, to = labs
    to.append("book-5", [PageWritten(7)])
    with pytest.raises(IngestRefused, match="before the store's last record"):
        source.copy(to)
    assert source.copy(to, recorded_at="now").written == 4
    assert to.table(Pages)["words"].to_list() == [10, 20, 7]
    assert to.read().list()[1].occurred_at == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def test_what_is_no_copy_is_refused(labs: tuple[el.Lab, el.Lab], tmp_path: Path) -> None:
    source, to = labs
    for wrong in (source, "elsewhere"):
        with pytest.raises(InvalidValue, match="another lab"):
            source.copy(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue):
        source.copy(to, recorded_at="then")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"<lambda> gave 'a text', which is no event, for the [\w.]+ at position 1") as caught:
        source.copy(to, transform=lambda event: "a text")
    assert caught.value.position == 1
    with pytest.raises(InvalidValue, match="transform=5 is no function"):
        source.copy(to, transform=5)  # type: ignore[arg-type]
    assert to.head == 0
    el.open(tmp_path / "reading").close()
    with el.open(tmp_path / "reading", read_only=True) as reading, pytest.raises(ReadOnly):
        source.copy(reading)


@given(st.lists(st.tuples(st.sampled_from(["book-1", "book-2", "x-1"]), st.integers(0, 3)), max_size=12), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_copies_in_any_number_of_pieces_are_one_copy(events: list[tuple[str, int]], size: int) -> None:
    chunk, copying.CHUNK = copying.CHUNK, size  # type: ignore[misc]
    try:
        with el.scratch() as source, el.scratch() as to:
            for at, (stream, words) in enumerate(events):
                source.append(stream, [PageWritten(words)])
                if at % 4 == 0:
                    source.copy(to, transform=lambda e: e if e.data.words else None)
            source.copy(to, transform=lambda e: e if e.data.words else None)
            assert [(e.stream, e.data) for e in to.read()] == [(s, PageWritten(n)) for s, n in events if n]
    finally:
        copying.CHUNK = chunk  # type: ignore[misc]
