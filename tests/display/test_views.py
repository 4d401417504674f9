"""The controllers of live views without a browser: pages of a log, steps of a debugger, moments, read models, traces."""

from __future__ import annotations

import datetime as dt
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.display import html
from eventlab.display.browsing import PAGE, Browser
from eventlab.display.looking import AsOf, Inspector
from eventlab.display.stepping import Stepper, flat, stepper
from eventlab.display.widgets import BrowserView
from eventlab.errors import EventlabError, InvalidValue
from eventlab.model.filters import Filter, parse
from eventlab.temporal.trace import Trace


@el.event
class SconceMounted:
    """Somebody hung a sconce."""

    room: el.Tag[str]
    watts: int


@el.event
class SconceLit:
    """It shines."""

    note: str = ""


@el.event
class SconceDimmed:
    """It shines less."""

    watts: int


@el.aggregate
class Sconce:
    """One sconce."""

    room: str = ""
    watts: int = 0
    lit: int = 0
    notes: dict[str, int] = el.field(default_factory=dict)

    def evolve(self, event: SconceMounted | SconceLit | SconceDimmed) -> Self:
        match event:
            case SconceMounted(room=room, watts=watts):
                return replace(self, room=room, watts=watts)
            case SconceLit(note=note):
                return replace(self, lit=self.lit + 1, notes=self.notes | {note: self.lit})
            case SconceDimmed(watts=watts):
                return replace(self, watts=watts)
        return self


def sconces(lab: el.Lab, count: int, seed: int = 0) -> el.Lab:
    chance = random.Random(seed)
    for number in range(count):
        lab.append(f"sconce-{number}", [SconceMounted(chance.choice("ab"), 60)])
        for _ in range(chance.randrange(4)):
            event: Any = SconceLit(chance.choice("xyz")) if chance.random() < 0.7 else SconceDimmed(chance.randrange(60))
            lab.append(f"sconce-{chance.randrange(number + 1)}", [event])
    return lab


@pytest.fixture(params=["memory", "hot", "compacted"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch(seed=1) if request.param == "memory" else el.open(tmp_path / "sconces", maintain=False) as made:
        sconces(made, 120)
        if request.param == "compacted":
            made.seal()
            made.compact(all=True)
            sconces(made, 3)
        yield made


def all_of(browser: Browser) -> list[dict[str, Any]]:
    return [row for at in range(0, browser.count, 37) for row in browser.rows(at, 37)]


@pytest.mark.parametrize(
    "filter", [el.events(), el.events(SconceDimmed), el.stream("sconce-1", "sconce-7") | el.tag(room="a")], ids=str
)
def test_pages_are_the_events_in_their_order_with_none_twice(lab: el.Lab, filter: Filter) -> None:
    browser = Browser(lab, filter)
    wanted = [(of.position, of.stream, of.version, of.type) for of in lab.read(filter)]
    assert [(row["position"], row["stream"], row["version"], row["type"]) for row in all_of(browser)] == wanted
    counted = pl.Series([of[3] for of in wanted]).value_counts(sort=True, name="count") if wanted else pl.DataFrame()
    assert sorted(of["count"] for of in browser.facets) == sorted(counted["count"].to_list())
    assert len(browser.rows(0, 10_000)) == min(PAGE, browser.count)
    assert browser.rows(browser.count) == []
    json.dumps(browser.state())
    assert f"{browser.count:,} event" in browser.html()


def test_what_others_append_is_seen_after_a_refresh_and_not_before(lab: el.Lab) -> None:
    browser = Browser(lab)
    before = all_of(browser)
    lab.append("sconce-999", [SconceMounted("a", 1)])
    assert all_of(browser) == before
    assert browser.do({"do": "refresh"})
    assert all_of(browser)[:-1] == before
    assert all_of(browser)[-1]["stream"] == "sconce-999"


def test_one_follows_an_event_to_what_it_belongs_to() -> None:
    with el.scratch(seed=1) as lab:
        lab.append("sconce-1", [SconceMounted("a", 60)])
        (hung,) = lab.read()
        with el.context(correlation_id=hung.event_id, causation_id=hung.event_id, actor="ada"):
            lab.append("sconce-2", [SconceLit("<b>"), SconceLit()])
        browser = Browser(lab)
        assert not browser.do({"do": "follow", "what": "stream"})
        assert browser.do({"do": "open", "position": 2})
        opened = browser.state()["opened"]
        assert dict(opened["about"])["actor"] == "ada"
        assert dict(opened["fields"]) == {"note": "<b>"}
        for what, positions in (("cause", [1]), ("effects", []), ("correlation", [1, 2, 3]), ("stream", [2, 3])):
            assert browser.do({"do": "follow", "what": what}), browser.error
            assert [row["position"] for row in all_of(browser)] == positions
            code = browser.code()
            found = eval(code, {"lab": lab, "el": el})
            got = found["_position"].to_list() if isinstance(found, pl.DataFrame) else [of.position for of in found]
            assert got == positions, code
            browser.do({"do": "back"})
        assert browser.do({"do": "compare", "position": 3})
        assert browser.state()["differs"] == [("note", "<b>", "")]
        assert browser.do({"do": "close"})
        assert browser.state()["opened"] is None
        assert not browser.do({"do": "open", "position": 99})
        assert browser.error == "there is no event at position 99 (1 to 3)"
        assert browser.do({"do": "open", "position": 1})
        assert not browser.do({"do": "follow", "what": "cause"})
        assert browser.error == "the event says no cause"
        assert "&lt;b&gt;" in browser.html()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", "everything"), ("SconceLit", "events(SconceLit)"),
        ("sconce-7", "stream(sconce-7)"), ("room:a", "tag(room:a)"),
        ("sconce", "category(sconce)"),
        ("SconceLit | sconce-7 & room:a", "events(SconceLit) | stream(sconce-7) & tag(room:a)"),
        ("el.events('SconceLit', \"SconceMounted\") & tag(room='a')", "events(SconceLit, SconceMounted) & tag(room:a)"),
        ("events(SconceLit)", "events(SconceLit)"),
    ],
)  # fmt: skip
def test_a_filter_is_what_was_typed(typed: str, meant: str) -> None:
    assert str(parse(typed)) == meant
    assert parse(parse(typed).code()) == parse(typed)


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_whatever_is_typed_is_a_filter_or_an_error_in_words(typed: str) -> None:
    try:
        found = parse(typed)
    except EventlabError:
        return
    assert parse(found.code()) == found


def test_a_filter_runs_no_code_and_an_error_leaves_what_is_looked_at(lab: el.Lab) -> None:
    browser = Browser(lab)
    before = browser.state()
    for typed in ("__import__('os').system('true')", "events(open('x'))", "events(1 + 1)"):
        assert not browser.do({"do": "filter", "text": typed})
        assert browser.error
    assert {**browser.state(), "error": ""} == before
    assert browser.do({"do": "filter", "text": "NoSuchThing"}) in (True, False)


def test_messages_of_several_threads_are_all_answered() -> None:
    with el.scratch(seed=1) as lab:
        view = BrowserView(Browser(sconces(lab, 200)))
        sent: list[dict[str, Any]] = []
        view.send = sent.append  # type: ignore[method-assign]
        asked = [{"do": "page", "at": at * 10, "count": 10} for at in range(20)]
        ask = [threading.Thread(target=view._hear, args=(view, one, [])) for one in asked]
        for thread in ask:
            thread.start()
        for thread in ask:
            thread.join()
        assert sorted(reply["page"] for reply in sent) == [at * 10 for at in range(20)]
        assert all(len(reply["rows"]) == 10 for reply in sent)
        turn = view.state["turn"]
        view.do(do="page", at=0)
        assert view.state["turn"] == turn, "a page is no change of the state"


# -- the debugger ------------------------------------------------------------------------------------------------------------


def test_a_stepper_goes_both_ways_and_shows_what_changed() -> None:
    with el.scratch() as lab:
        lab.append("sconce-1", [SconceMounted("a", 60), SconceLit("x"), SconceDimmed(20), SconceLit("y")])
        view = Stepper(lab.debug(Sconce, "1"))
        assert view.state()["when"] == ""
        assert view.do({"do": "step", "by": 2})
        changed = [of[:2] for of in view.state()["tree"] if of[2]]
        assert changed == [("lit", "1"), ("notes['x']", "0"), ("notes", "")]
        assert view.do({"do": "stop", "changed": "watts"})
        assert view.do({"do": "run"})
        assert (view.state()["at"], view.state()["stops"]) == (3, ["watts changes"])
        assert eval(view.code(), {"lab": lab, "Sconce": Sconce}).state == view.debugger.state
        assert view.do({"do": "run", "back": True})
        assert view.state()["at"] == 1
        assert view.do({"do": "to", "step": 99})
        assert view.state()["at"] == 4
        assert not view.do({"do": "stop", "changed": "colour"})
        assert "Sconce has no field 'colour'" in view.error
        assert not view.do({"do": "stop"})
        assert view.do({"do": "clear"})
        assert view.do({"do": "stop", "type": "SconceLit"})
        assert "step 4 of 4: SconceLit at position 4" in view.html()
        json.dumps(view.state())

        @el.aggregate(name="sconce")
        class Dim:
            watts: int = 0

            def evolve(self, event: SconceMounted | SconceDimmed) -> Self:
                return replace(self, watts=event.watts // 2 if isinstance(event, SconceDimmed) else event.watts)

        parted = view.swap(Dim)
        assert parted is not None
        assert view.state()["parted"] == "Dim parts at step 3, watts: 20 here, 10 there"
        assert view.state()["at"] == 3
        assert view.swap(Sconce) is None
        assert view.state()["parted"] == "Sconce gives the same states"
    with pytest.raises(InvalidValue, match="int is no debugger"):
        stepper(3)


def test_a_fold_that_raises_is_shown_where_it_does() -> None:
    @el.aggregate(name="sconce")
    class Breaks:
        lit: int = 0

        def evolve(self, event: SconceLit | SconceMounted) -> Self:
            if isinstance(event, SconceLit):
                raise ValueError("the bulb is gone")
            return self

    with el.scratch() as lab:
        lab.append("sconce-1", [SconceMounted("a", 60), SconceLit(), SconceLit()])
        view = Stepper(lab.debug(Breaks, "1"))
        view.do({"do": "run"})
        assert (view.state()["at"], view.state()["raised"]) == (2, "ValueError: the bulb is gone")
        assert "the bulb is gone" in view.html()


def test_a_state_as_lines() -> None:
    assert list(flat({"a": {"b": [1, None]}, "c": {}})) == [("['a']['b'][0]", "1"), ("['a']['b'][1]", "None"), ("['c']", "{}")]


# -- moments and read models -------------------------------------------------------------------------------------------------


def test_a_slider_shows_what_a_moment_shows(lab: el.Lab) -> None:
    view = AsOf(lab, Sconce)
    for position in (0, 1, lab.head // 2, lab.head, lab.head + 9):
        assert view.do({"do": "to", "position": position})
        at = min(position, lab.head)
        frame = lab.at(position=at).table(Sconce)
        assert (view.state()["position"], view.state()["count"]) == (at, len(frame))
        assert [row[0] for row in view.state()["rows"]] == frame["_id"].head(20).to_list()
        assert eval(view.code(), {"lab": lab, "Sconce": Sconce}).equals(frame)
    one = AsOf(lab, Sconce, "1")
    mine = [event.position for event in lab.read(el.stream("sconce-1"))]
    one.do({"do": "to", "position": 0})
    for position in mine:
        assert one.do({"do": "by", "count": 1})
        assert one.state()["position"] == position
        assert dict(row[:2] for row in one.state()["rows"])["watts"] == str(lab.at(position=position).load(Sconce, "1").watts)
    assert one.do({"do": "by", "count": -100})
    assert one.state()["position"] == 0
    assert not view.do({"do": "time", "time": "not a time"})
    assert view.error
    assert view.do({"do": "time", "time": dt.datetime.now(dt.UTC).isoformat()})
    assert view.do({"do": "refresh"})
    assert "as of position" in view.html()
    json.dumps(one.state())


def test_an_inspector_pages_sorts_finds_and_blames(lab: el.Lab) -> None:
    view = Inspector(lab, Sconce)
    frame = lab.table(Sconce)
    assert view.state()["count"] == len(frame)

    def page(at: int = 0) -> list[Any]:
        view.do({"do": "page", "at": at})
        (told,) = view.taken()
        return list(told["rows"])

    assert [row[0] for row in [*page(), *page(100)]] == frame["_id"].to_list()
    assert view.do({"do": "sort", "column": "watts"})
    assert [row[2] for row in page()] == [str(of) for of in frame["watts"].sort().head(100)]
    assert view.do({"do": "sort", "column": "watts"})
    shown = eval(view.code(), {"lab": lab, "Sconce": Sconce})
    assert shown["watts"].to_list() == frame["watts"].sort(descending=True).to_list()
    assert view.do({"do": "sort", "column": "watts"})
    assert view.code() == "lab.table(Sconce)"
    assert view.do({"do": "find", "text": "11"})
    assert {row[0] for row in page()} == {of for of in frame["_id"] if "11" in of}
    row = next(at for at, of in enumerate(page()) if of[0] == "11")
    assert view.do({"do": "blame", "row": row, "field": "watts"})
    assert view.state()["blamed"]["rows"][-1][1] == "SconceMounted"
    assert not view.do({"do": "blame", "row": 10_000, "field": "watts"})
    assert not view.do({"do": "sort", "column": "colour"})
    lab.rebuild(Sconce)
    lab.append("sconce-1", [SconceLit()])
    assert view.do({"do": "refresh"})
    facts = dict(view.state()["facts"])
    assert facts["read model, accepted"].endswith("1 event behind")
    assert "lifted" in facts["plan"] or "loop" in facts["plan"]
    json.dumps(view.state())
    assert "none is stored" not in view.html()


# -- traces ------------------------------------------------------------------------------------------------------------------


def test_a_trace_is_who_caused_whom_with_gaps_and_causes_from_outside() -> None:
    now = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]
    with el.scratch(clock=lambda: now[0], seed=1) as lab:
        lab.append("sconce-1", [SconceMounted("a", 60)])
        (first,) = lab.read()
        wait = {2: 1, 3: 50, 4: 1}
        cause = first
        for number in (2, 3):
            now[0] += dt.timedelta(seconds=wait[number])
            with el.context(correlation_id=first.event_id, causation_id=cause.event_id, actor="ada"):
                lab.append(f"sconce-{number}", [SconceLit()])
            (cause,) = lab.read(after=lab.head - 1)
        now[0] += dt.timedelta(seconds=1)
        with el.context(correlation_id=first.event_id, causation_id="00000000-0000-4000-8000-000000000001"):
            lab.append("sconce-4", [SconceDimmed(3)])
        lab.append("sconce-5", [SconceDimmed(3)])
        found = lab.trace(first)
        assert found.frame.select("position", "depth", "cause", "command", "gap").rows() == [
            (1, 0, None, False, False), (2, 1, 1, False, False), (3, 2, 2, False, True), (4, 0, None, True, False),
        ]  # fmt: skip
        assert repr(found) == "Trace(4 events of 4 streams in 0:00:52)"
        assert found.orphans["position"].to_list() == [4]
        assert lab.trace(str(first.event_id)).frame.equals(found.frame)
        assert lab.trace(cause).frame.equals(found.frame)
        assert lab.at(position=2).trace(first).events == 2
        assert "e1 --> e2" in found.mermaid()
        assert "c4([command]) -.-> e4" in found.mermaid()
        drawn = html.trace_html(found)
        assert "a wait before it" in drawn
        assert "caused from outside" in drawn
        empty = lab.trace("00000000-0000-4000-8000-00000000000f")
        assert isinstance(empty, Trace)
        assert (empty.events, empty.lasted) == (0, dt.timedelta())
        with pytest.raises(InvalidValue, match="is not a UUID"):
            lab.trace("nonsense")
